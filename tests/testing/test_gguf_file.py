"""The maker of tiny GGUF files, against the plain definition of the format."""

import numpy as np
import pytest

from gemma_scope.testing import checkpoints, gguf_file
from gemma_scope.weights import quantization

_BY_NAME = {e.name: e for e in quantization.ENCODINGS.values()}


@pytest.mark.parametrize(
  ("encoding", "steps"), [("Q8_0", 127), ("Q4_0", 7), ("F16", 1024)]
)
def test_quantize_is_within_half_a_step(encoding, steps):
  rng = np.random.default_rng(0)
  values = rng.standard_normal((4, 64)).astype(np.float32)
  raw = np.frombuffer(gguf_file.quantize(values, encoding), np.uint8)
  assert len(raw) == _BY_NAME[encoding].nbytes(values.shape)
  found = quantization.dequantize(raw, _BY_NAME[encoding], values.shape)
  most = np.abs(values).max() / steps * 0.51
  np.testing.assert_allclose(found, values, atol=most)


def test_a_block_of_zeros():
  raw = gguf_file.quantize(np.zeros((1, 32), np.float32), "Q8_0")
  assert raw == bytes(34)


def test_names():
  arrays = checkpoints.random_arrays(checkpoints.tiny_sizes())
  names = [
    gguf_file.gguf_name(n) for n in checkpoints.hugging_face_matrices(arrays)
  ]
  assert "token_embd.weight" in names
  assert "blk.1.ffn_norm.weight" in names
  assert len(names) == len(set(names)) == 28


def test_write_gguf(tmp_path):
  arrays = checkpoints.random_arrays(checkpoints.tiny_sizes())
  path = gguf_file.write_gguf(tmp_path / "m", arrays, metadata={"k": "value"})
  content = path.read_bytes()
  assert content.startswith(b"GGUF\x03\x00\x00\x00")
  assert b"value" in content
  norm = arrays["final_norm/scale"] + np.float32(1)
  assert norm.tobytes() in content
