"""Mapped tensors of any dtype, and patterns of shapes."""

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from gemma_scope.dictionaries import tensor_files
from gemma_scope.errors import CheckpointError

DTYPES = (np.float32, np.float16, np.int8, np.int32, np.int64, np.uint8, bool)


def test_every_dtype_is_mapped(tmp_path):
  arrays = {np.dtype(d).name: np.ones((2, 3), d) for d in DTYPES}
  safetensors.numpy.save_file(arrays, tmp_path / "a")
  found = tensor_files.read_tensors(tmp_path / "a")
  for name, array in found.items():
    assert isinstance(array, np.memmap)
    assert array.dtype == name
    np.testing.assert_array_equal(array, arrays[name])


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.int8])
def test_written_and_read(dtype, tmp_path):
  arrays = {
    "a": np.arange(6).reshape(2, 3).astype(dtype),
    "b": np.ones(2, dtype),
  }
  tensor_files.write_tensors(tmp_path / "a", arrays)
  found = tensor_files.read_tensors(tmp_path / "a")
  assert list(found) == ["a", "b"]
  for name, array in arrays.items():
    assert found[name].dtype == array.dtype
    np.testing.assert_array_equal(found[name], array)


def test_empty_tensor(tmp_path):
  safetensors.numpy.save_file({"a": np.ones((0, 3), np.int32)}, tmp_path / "a")
  assert tensor_files.read_tensors(tmp_path / "a")["a"].shape == (0, 3)


def test_other_dtype(tmp_path):
  path = tmp_path / "a"
  safetensors.numpy.save_file({"a": np.ones(3, np.int16)}, path)
  path.write_bytes(path.read_bytes().replace(b'"I16"', b'"F8X"'))
  with pytest.raises(CheckpointError, match="a is F8X"):
    tensor_files.read_tensors(path)


def test_missing_file(tmp_path):
  with pytest.raises(CheckpointError, match="No such file"):
    tensor_files.read_tensors(tmp_path / "a")


def test_shapes():
  tensors = {"a": np.ones((2, 3)), "b": np.ones(3), "other": np.ones(9)}
  pattern = {"a": ("m", "d"), "b": ("d",)}
  assert tensor_files.check_shapes(tensors, pattern, "x") == {"m": 2, "d": 3}
  with pytest.raises(CheckpointError, match="no c among a, b, other"):
    tensor_files.check_shapes(tensors, {"c": ("d",)}, "x")
  with pytest.raises(CheckpointError, match=r"(?s)b is .*\(3,\).*\(m=2\)"):
    tensor_files.check_shapes(tensors, {"a": ("m", "d"), "b": ("m",)}, "x")
  with pytest.raises(CheckpointError, match=r"shape \(m=2, 4\)"):
    tensor_files.check_shapes(tensors, {"a": ("m", 4)}, "x")


def test_first_file(tmp_path):
  (tmp_path / "b").write_text("")
  assert tensor_files.weight_file(tmp_path, "a", "b") == tmp_path / "b"
  assert tensor_files.weight_file(tmp_path, "a") is None
