"""Orbax checkpoints in every container, and broken ones."""

import shutil

import ml_dtypes
import numpy as np
import pytest

from gemma_scope import errors
from gemma_scope.testing import checkpoints
from gemma_scope.weights import orbax

# More than one period, and a last one that is cut off.
_SIZES = checkpoints.tiny_sizes(8)


@pytest.fixture(scope="module")
def arrays():
  return checkpoints.random_arrays(_SIZES, dtype=ml_dtypes.bfloat16)


def _same(tensors, arrays):
  assert tensors.keys() == arrays.keys()
  for name, array in arrays.items():
    assert tensors[name].shape == array.shape
    assert tensors[name].dtype == array.dtype
    found = tensors[name].read()
    assert isinstance(found, np.ndarray)
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array, err_msg=name)


@pytest.mark.parametrize("multimodal", [False, True])
@pytest.mark.parametrize("container", ["nested", "flat", "stacked", "state"])
def test_containers(arrays, tmp_path, container, multimodal):
  path = checkpoints.write_orbax_container(
    tmp_path / "m", arrays, container, multimodal=multimodal
  )
  opened = orbax.open_orbax(path)
  assert opened.format == "orbax"
  assert opened.source == str(path)
  _same(opened.tensors, arrays)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
  small = checkpoints.random_arrays(checkpoints.tiny_sizes(2))
  path = tmp_path_factory.mktemp("orbax") / "m"
  return small, checkpoints.write_orbax_container(path, small)


def test_only_what_is_asked_for_is_read(stored, monkeypatch):
  import orbax.checkpoint as ocp

  arrays, path = stored
  asked = []
  whole = ocp.PyTreeCheckpointer.restore

  def restore(self, folder, args):
    asked.append(args.item)
    return whole(self, folder, args=args)

  monkeypatch.setattr(ocp.PyTreeCheckpointer, "restore", restore)
  tensors = orbax.open_orbax(path).tensors
  assert asked == []
  found = tensors["final_norm/scale"].read()
  np.testing.assert_array_equal(found, arrays["final_norm/scale"])
  assert asked == [{"final_norm": {"scale": 0}}]


def test_a_stack_is_read_once(arrays, tmp_path, monkeypatch):
  import orbax.checkpoint as ocp

  path = checkpoints.write_orbax_container(tmp_path / "m", arrays, "stacked")
  calls = []
  whole = ocp.PyTreeCheckpointer.restore

  def restore(self, folder, args):
    calls.append(args.item)
    return whole(self, folder, args=args)

  monkeypatch.setattr(ocp.PyTreeCheckpointer, "restore", restore)
  tensors = orbax.open_orbax(path).tensors
  for layer in (0, 6):
    name = f"layer_{layer}/mlp/linear"
    np.testing.assert_array_equal(tensors[name].read(), arrays[name])
  assert len(calls) == 1


def test_data_that_cannot_be_read(stored, tmp_path, monkeypatch):
  import orbax.checkpoint as ocp

  def restore(self, folder, args):
    raise ValueError("DATA_LOSS: checksum\nsecond line")

  monkeypatch.setattr(ocp.PyTreeCheckpointer, "restore", restore)
  tensors = orbax.open_orbax(stored[1]).tensors
  with pytest.raises(errors.CheckpointError, match="norm/scale: DATA_LOSS: ch"):
    tensors["final_norm/scale"].read()


def test_missing_data_files(stored, tmp_path):
  copy = shutil.copytree(stored[1], tmp_path / "m")
  (copy / "manifest.ocdbt").unlink()
  with pytest.raises(errors.CheckpointError, match="ocdbt is missing"):
    orbax.open_orbax(copy)


@pytest.mark.parametrize("item", ["default", "params"])
def test_inside_the_folder_of_a_step(stored, tmp_path, item):
  arrays, path = stored
  shutil.copytree(path, tmp_path / "step_7" / item)
  _same(orbax.open_orbax(tmp_path / "step_7").tensors, arrays)


def test_tokenizer_beside_the_folder(stored):
  _, path = stored
  assert orbax.open_orbax(path).tokenizer is None
  tokenizer = path.parent / "tokenizer.model"
  tokenizer.write_bytes(b"x")
  found = orbax.open_orbax(path).tokenizer
  tokenizer.unlink()
  assert found == str(tokenizer)


def test_no_orbax(tmp_path):
  assert not orbax.is_orbax(tmp_path)
  assert not orbax.is_orbax(tmp_path / "absent")
  with pytest.raises(errors.CheckpointError, match="not written by Orbax"):
    orbax.open_orbax(tmp_path)


def test_corrupt_structure(stored, tmp_path):
  _, path = stored
  copy = shutil.copytree(path, tmp_path / "m")
  (copy / "_METADATA").write_text("{")
  with pytest.raises(errors.CheckpointError, match="its structure"):
    orbax.open_orbax(copy)


def test_another_model(tmp_path):
  arrays = {"layer_0/conv/kernel": np.ones(3, np.float32)}
  path = checkpoints.write_orbax_container(tmp_path / "m", arrays)
  with pytest.raises(errors.CheckpointError, match="no complete Gemma 3"):
    orbax.open_orbax(path)


def test_missing_layer(tmp_path):
  arrays = checkpoints.random_arrays(checkpoints.tiny_sizes(3))
  del arrays["layer_1/mlp/linear"]
  path = checkpoints.write_orbax_container(tmp_path / "m", arrays)
  with pytest.raises(errors.CheckpointError, match="missing layer_1/mlp/linea"):
    orbax.open_orbax(path)
