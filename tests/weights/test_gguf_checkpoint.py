"""GGUF files as checkpoints: names, the +1 of norms, and refusals."""

import numpy as np
import pytest

from gemma_scope import errors
from gemma_scope.testing import checkpoints, gguf_file
from gemma_scope.weights import (
  catalog,
  checkpoint,
  gguf,
  gguf_checkpoint,
  hashes,
  packages,
)


@pytest.fixture
def arrays():
  return checkpoints.random_arrays(checkpoints.tiny_sizes(3))


def test_every_tensor_comes_back(arrays, tmp_path):
  path = gguf_file.write_gguf(tmp_path / "m.gguf", arrays)
  opened = gguf_checkpoint.open_gguf(path)
  assert opened.format == "gguf"
  assert opened.source == opened.tokenizer == str(path)
  assert opened.tensors.keys() == arrays.keys()
  for name, array in arrays.items():
    found = opened.tensors[name].read()
    assert found.shape == opened.tensors[name].shape
    assert found.dtype == opened.tensors[name].dtype == np.float32
    if name.endswith("scale"):  # what the +1 rounds away stays away
      array = (array + np.float32(1)) - np.float32(1)
    np.testing.assert_array_equal(found, array, err_msg=name)


@pytest.mark.parametrize(
  ("encoding", "dtype", "tolerance"),
  [
    ("F16", "float16", 2e-4),
    ("BF16", "bfloat16", 2e-3),
    ("Q8_0", "float32", 4e-3),
    ("Q4_0", "float32", 6e-2),
  ],
)
def test_encodings(arrays, tmp_path, encoding, dtype, tolerance):
  path = gguf_file.write_gguf(tmp_path / "m.gguf", arrays, encoding=encoding)
  opened = gguf_checkpoint.open_gguf(path)
  quantised = encoding.startswith("Q")
  assert gguf_checkpoint.is_quantized(gguf.read_header(path)) == quantised
  for name, array in arrays.items():
    tensor = opened.tensors[name]
    expected = "float32" if name.endswith("scale") else dtype
    assert tensor.dtype.name == tensor.read().dtype.name == expected
    found = tensor.read().astype(np.float32)
    np.testing.assert_allclose(found, array, atol=tolerance, err_msg=name)


def test_tensors_of_no_use_are_skipped(arrays, tmp_path, monkeypatch):
  # A repeated output matrix and rope factors are met in the wild.
  write = checkpoints.hugging_face_matrices
  extra = {"lm_head.weight": np.ones((160, 64), np.float32)}
  monkeypatch.setitem(gguf_file._NAMES, "lm_head", "output")
  monkeypatch.setattr(
    checkpoints, "hugging_face_matrices", lambda t: write(t) | extra
  )
  path = gguf_file.write_gguf(tmp_path / "m.gguf", arrays)
  assert "output.weight" in gguf.read_header(path).tensors
  assert gguf_checkpoint.open_gguf(path).tensors.keys() == arrays.keys()


@pytest.mark.parametrize("lost", [1, 1000, 20_000])
def test_half_a_file(arrays, tmp_path, lost):
  path = gguf_file.write_gguf(tmp_path / "m.gguf", arrays)
  path.write_bytes(path.read_bytes()[:-lost])
  with pytest.raises(errors.CheckpointError, match="GGUF file is cut off"):
    gguf_checkpoint.open_gguf(path)


@pytest.mark.parametrize(
  ("metadata", "match"),
  [
    ({"general.architecture": "gemma2"}, "another architecture"),
    ({"general.architecture": "clip"}, "image encoder"),
    ({"split.count": 3}, "one of 3"),
    ({"gemma3.block_count": 18}, "3 layers, header says 18"),
  ],
)
def test_other_models(arrays, tmp_path, metadata, match):
  path = gguf_file.write_gguf(tmp_path / "m.gguf", arrays, metadata=metadata)
  with pytest.raises(errors.CheckpointError, match=match):
    gguf_checkpoint.open_gguf(path)


def test_unknown_packing(arrays, tmp_path, monkeypatch):
  path = gguf_file.write_gguf(tmp_path / "m.gguf", arrays, encoding="F16")
  content = path.read_bytes()
  at = content.index(b"blk.0.attn_q.weight") + len(b"blk.0.attn_q.weight")
  at += 4 + 2 * 8
  path.write_bytes(content[:at] + b"\x13" + content[at + 1 :])
  with pytest.raises(errors.CheckpointError, match="has type 19"):
    gguf_checkpoint.open_gguf(path)


def test_missing_tensor(arrays, tmp_path):
  path = gguf_file.write_gguf(tmp_path / "m.gguf", arrays)
  content = path.read_bytes().replace(b"blk.2.ffn_up.", b"blk.2.ffn_op.")
  path.write_bytes(content)
  with pytest.raises(errors.CheckpointError, match=r"up_proj.weight is missin"):
    gguf_checkpoint.open_gguf(path)


@pytest.mark.real
def test_the_real_file():
  """Shapes, hash and sums (float64, from the `gguf` package 0.19.0)."""
  entry = catalog.lookup("gemma-3-270m")
  path = packages.assembled(entry.package)
  assert hashes.file_sha256(path) == entry.package.sha256
  header = gguf.read_header(path)
  assert len(header.tensors) == 236
  assert len(header.metadata["tokenizer.ggml.tokens"]) == 262_144
  tensors = gguf_checkpoint.open_gguf(path).tensors
  assert checkpoint.check_complete(tensors, "real") == entry.sizes

  def read(name):
    return tensors[name].read()

  query = read("layer_3/attn/q_einsum/w")
  gate_up = read("layer_5/mlp/gating_einsum")
  key_value = read("layer_17/attn/kv_einsum/w")
  output = read("layer_0/attn/attn_vec_einsum/w")
  table = read("embedder/input_embedding")
  sums = {
    "embedding": (table.sum(dtype=np.float64), -27668.36862385273),
    "query": (query.sum(), 38.25425720214844),
    "query head 2, width 5": (query[2, :, 5].sum(), -1.0526275634765625),
    "key": (key_value[0].sum(), -5.568046569824219),
    "value": (key_value[1].sum(), -31.608030080795288),
    "output": (output.sum(), -1.8330761790275574),
    "output head 3 to 7": (output[3, :, 7].sum(), -0.4788951873779297),
    "gate": (gate_up[0].sum(), 90.69449615478516),
    "up": (gate_up[1].sum(), 14.853477478027344),
    "down": (read("layer_5/mlp/linear")[11].sum(), 0.7920956611633301),
    "final norm": (read("final_norm/scale").sum(), 16221.6953125),
    "key norm": (read("layer_9/attn/_key_norm/scale").sum(), 265.42926025),
  }
  for name, (found, expected) in sums.items():
    np.testing.assert_allclose(found, expected, rtol=1e-6, err_msg=name)
