"""Bit-equal to the reference implementation (goldens), in every path."""

import pathlib

import ml_dtypes
import numpy as np
import pytest

from gemma_scope import errors
from gemma_scope.weights import quantization

_GOLDEN = pathlib.Path(__file__).parents[1] / "goldens"
_BY_NAME = {e.name: e for e in quantization.ENCODINGS.values()}


@pytest.fixture(scope="module")
def golden():
  with np.load(_GOLDEN / "dequantised_blocks.npz") as stored:
    return dict(stored)


def _same_bits(found, expected):
  assert found.dtype == np.float32
  np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize("name", list(_BY_NAME))
def test_equals_the_reference(golden, name):
  blocks = golden[f"{name}_blocks"]
  expected = golden[f"{name}_values"]
  found = quantization.dequantize(
    blocks.reshape(-1), _BY_NAME[name], expected.shape
  )
  _same_bits(found, expected)


@pytest.mark.parametrize("name", list(_BY_NAME))
def test_many_chunks_on_threads(golden, name, monkeypatch):
  monkeypatch.setattr(quantization, "_PARALLEL_FROM", 1)
  monkeypatch.setattr(quantization, "_CHUNK_ELEMENTS", 512)
  blocks = np.tile(golden[f"{name}_blocks"], (40, 1))
  expected = np.tile(golden[f"{name}_values"], (40, 1))
  found = quantization.dequantize(
    blocks.reshape(-1), _BY_NAME[name], expected.shape
  )
  _same_bits(found, expected)


def test_input_is_not_touched(golden):
  for name, encoding in _BY_NAME.items():
    blocks = golden[f"{name}_blocks"].reshape(-1).copy()
    blocks.flags.writeable = False
    shape = golden[f"{name}_values"].shape
    quantization.dequantize(blocks, encoding, shape)


def test_an_error_on_a_thread_is_raised(monkeypatch):
  monkeypatch.setattr(quantization, "_PARALLEL_FROM", 1)

  def fail(blocks, out):
    raise RuntimeError("broken block")

  encoding = quantization.Encoding("X", 32, 1, None, fail)
  with pytest.raises(RuntimeError, match="broken block"):
    quantization.dequantize(np.zeros(64, np.uint8), encoding, (64, 32))


def test_sizes_of_blocks():
  assert _BY_NAME["Q4_K"].nbytes((3, 512)) == 3 * 2 * 144
  assert _BY_NAME["Q8_0"].nbytes((2, 64)) == 2 * 2 * 34
  assert _BY_NAME["BF16"].nbytes((7,)) == 14
  assert _BY_NAME["BF16"].plain == ml_dtypes.bfloat16
  with pytest.raises(errors.CheckpointError, match="multiple of 256"):
    _BY_NAME["Q6_K"].nbytes((2, 128))
