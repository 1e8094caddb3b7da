"""One safetensors file, against the reference library and broken ones."""

import io
import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from gemma_scope import errors
from gemma_scope.weights import safetensors_file

_ARRAYS = {
  "single": np.arange(6, dtype=np.float32).reshape(2, 3),
  "half": np.arange(4, dtype=np.float16),
  "brain": np.arange(8, dtype=ml_dtypes.bfloat16).reshape(2, 2, 2),
  "empty": np.zeros((0, 3), np.float32),
}


@pytest.fixture
def path(tmp_path):
  path = tmp_path / "a.safetensors"
  safetensors.numpy.save_file(_ARRAYS, path, {"made": "elsewhere"})
  return path


def _write(path, arrays, metadata):
  specs = {name: (a.shape, a.dtype) for name, a in arrays.items()}
  with open(path, "wb") as file:
    safetensors_file.write(file, specs, arrays.values(), metadata)


def test_reads_what_the_reference_wrote(path):
  header = safetensors_file.read_header(path)
  assert header.metadata == {"made": "elsewhere"}
  assert header.slots.keys() == _ARRAYS.keys()
  for name, array in _ARRAYS.items():
    tensor = safetensors_file.lazy_tensor(header, name)
    assert (tensor.shape, tensor.dtype) == (array.shape, array.dtype)
    found = tensor.read()
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


def test_values_are_mapped(path):
  header = safetensors_file.read_header(path)
  found = safetensors_file.lazy_tensor(header, "single").read()
  assert isinstance(found, np.memmap)
  assert not found.flags.writeable


def test_the_reference_reads_what_is_written(tmp_path):
  path = tmp_path / "b.safetensors"
  _write(path, _ARRAYS, {"format": "pt"})
  found = safetensors.numpy.load_file(path)
  for name, array in _ARRAYS.items():
    assert found[name].dtype == array.dtype
    np.testing.assert_array_equal(found[name], array)
  assert safetensors_file.read_header(path).metadata == {"format": "pt"}


def test_data_is_aligned(tmp_path):
  for extra in range(5):
    path = tmp_path / f"{extra}.safetensors"
    _write(path, {"x" * (extra + 1): np.ones(3, np.float32)}, {})
    (slot,) = safetensors_file.read_header(path).slots.values()
    assert slot.start % 64 == 0


def test_transposed_arrays_are_written_in_order(tmp_path):
  array = np.arange(6, dtype=np.float32).reshape(2, 3).T
  _write(tmp_path / "t", {"t": array}, {})
  found = safetensors.numpy.load_file(tmp_path / "t")["t"]
  np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("keep", [0, 7, 8, 40, -1])
def test_cut_off(path, keep):
  path.write_bytes(path.read_bytes()[:keep])
  with pytest.raises(errors.CheckpointError, match="cut off or corrupt"):
    safetensors_file.read_header(path)


def test_longer_than_its_tensors(path):
  path.write_bytes(path.read_bytes() + b"more")
  with pytest.raises(errors.CheckpointError, match="cut off or corrupt"):
    safetensors_file.read_header(path)


@pytest.mark.parametrize(
  "row",
  [
    {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]},
    {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]},
    {"dtype": "F32", "shape": [2]},
    {"dtype": "F32", "shape": 2, "data_offsets": [0, 8]},
    [1, 2],
    "text",
  ],
)
def test_corrupt_rows(tmp_path, row):
  header = json.dumps({"a": row}).encode()
  path = tmp_path / "c.safetensors"
  path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
  with pytest.raises(errors.CheckpointError, match="cut off or corrupt"):
    safetensors_file.read_header(path)


@pytest.mark.parametrize("text", [b"{", b"[]", b'{"a": 3', b"\xff\xff"])
def test_corrupt_headers(tmp_path, text):
  path = tmp_path / "c.safetensors"
  path.write_bytes(len(text).to_bytes(8, "little") + text)
  with pytest.raises(errors.CheckpointError, match="cut off or corrupt"):
    safetensors_file.read_header(path)


def test_quantised_dtypes_are_refused_when_asked_for(tmp_path):
  path = tmp_path / "q.safetensors"
  safetensors.numpy.save_file({"q": np.ones(4, np.int8)}, path)
  header = safetensors_file.read_header(path)
  with pytest.raises(errors.CheckpointError, match="q is I8"):
    safetensors_file.lazy_tensor(header, "q")


def test_other_dtypes_are_not_written():
  specs = {"x": ((3,), np.dtype(np.float64))}
  with pytest.raises(errors.CheckpointError, match="x is float64"):
    safetensors_file.write(io.BytesIO(), specs, [np.zeros(3)], {})
