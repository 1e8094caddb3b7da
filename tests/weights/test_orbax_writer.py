"""Canonical tensors to an Orbax checkpoint and back, bit for bit."""

import ml_dtypes
import numpy as np
import pytest

from gemma_scope import errors
from gemma_scope.testing import checkpoints
from gemma_scope.weights import orbax, orbax_writer

_SIZES = checkpoints.tiny_sizes(2)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_round_trip(tmp_path, dtype):
  arrays = checkpoints.random_arrays(_SIZES, dtype=dtype)
  path = orbax_writer.write_orbax(tmp_path / "m", arrays)
  opened = orbax.open_orbax(path)
  assert opened.tensors.keys() == arrays.keys()
  for name, array in arrays.items():
    found = opened.tensors[name].read()
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found.view(np.uint8), array.view(np.uint8))


def test_the_tree_is_the_one_of_the_official_package(tmp_path):
  import orbax.checkpoint as ocp

  arrays = checkpoints.random_arrays(_SIZES)
  path = orbax_writer.write_orbax(tmp_path / "m", arrays)
  with ocp.StandardCheckpointer() as checkpointer:
    tree = checkpointer.metadata(path).item_metadata.tree
  assert sorted(tree) == ["embedder", "final_norm", "layer_0", "layer_1"]
  assert sorted(tree["layer_0"]["attn"]) == [
    "_key_norm",
    "_query_norm",
    "attn_vec_einsum",
    "kv_einsum",
    "q_einsum",
  ]
  assert tree["layer_0"]["mlp"]["gating_einsum"].shape == (2, 96, 64)


def test_lazy_tensors_can_be_written(tmp_path):
  arrays = checkpoints.random_arrays(_SIZES)
  first = orbax_writer.write_orbax(tmp_path / "a", arrays)
  lazy = orbax.open_orbax(first).tensors
  second = orbax_writer.write_orbax(tmp_path / "b", lazy)
  found = orbax.open_orbax(second).tensors["layer_1/mlp/linear"].read()
  np.testing.assert_array_equal(found, arrays["layer_1/mlp/linear"])


def test_existing_folder_is_kept(tmp_path):
  arrays = checkpoints.random_arrays(_SIZES)
  (tmp_path / "m").mkdir()
  (tmp_path / "m" / "mine").write_text("x")
  with pytest.raises(errors.CheckpointError, match="already exists"):
    orbax_writer.write_orbax(tmp_path / "m", arrays)
  assert (tmp_path / "m" / "mine").exists()


def test_nothing_is_left_half_written(tmp_path, monkeypatch):
  import orbax.checkpoint as ocp

  def full(self, folder, tree):
    half = folder.parent / f"{folder.name}.orbax-checkpoint-tmp"
    half.mkdir()
    (half / "d").write_text("x")
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(ocp.StandardCheckpointer, "save", full)
  arrays = checkpoints.random_arrays(_SIZES)
  with pytest.raises(OSError, match="No space left"):
    orbax_writer.write_orbax(tmp_path / "m", arrays)
  assert list(tmp_path.iterdir()) == []


def test_incomplete_tensors_are_refused(tmp_path):
  arrays = checkpoints.random_arrays(_SIZES)
  del arrays["final_norm/scale"]
  with pytest.raises(errors.CheckpointError, match="missing final_norm/scale"):
    orbax_writer.write_orbax(tmp_path / "m", arrays)
