"""Canonical tensors to a Hugging Face folder and back, bit for bit."""

import json
import os

import ml_dtypes
import numpy as np
import pytest

from gemma_scope import errors
from gemma_scope.testing import checkpoints
from gemma_scope.weights import safetensors_hf, safetensors_writer

_SIZES = checkpoints.tiny_sizes(7)


def _config(rope_factor=1.0):
  return safetensors_writer.hugging_face_config(
    _SIZES, query_scalar=8, window=5, rope_factor=rope_factor, max_context=64
  )


@pytest.fixture(params=[np.float32, np.float16, ml_dtypes.bfloat16])
def arrays(request):
  return checkpoints.random_arrays(_SIZES, dtype=request.param)


@pytest.mark.parametrize("most", [10**9, 40_000])
def test_round_trip(arrays, tmp_path, most):
  folder = safetensors_writer.write_hugging_face(
    tmp_path / "m", arrays, _config(), max_shard_bytes=most
  )
  opened = safetensors_hf.open_hugging_face(folder)
  assert list(opened.tensors) == list(arrays)
  for name, array in arrays.items():
    found = opened.tensors[name].read()
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(
      np.ascontiguousarray(found).view(np.uint8), array.view(np.uint8)
    )


def test_matrices_are_those_of_hugging_face(arrays, tmp_path):
  import safetensors.numpy

  folder = safetensors_writer.write_hugging_face(
    tmp_path / "m", arrays, _config()
  )
  found = safetensors.numpy.load_file(folder / "model.safetensors")
  expected = checkpoints.hugging_face_matrices(arrays)
  assert found.keys() == {f"model.{name}" for name in expected}
  for name, matrix in expected.items():
    np.testing.assert_array_equal(found[f"model.{name}"], matrix)


def test_shards_keep_to_the_limit(tmp_path):
  arrays = checkpoints.random_arrays(_SIZES)
  folder = safetensors_writer.write_hugging_face(
    tmp_path / "m", arrays, _config(), max_shard_bytes=80_000
  )
  index = json.loads((folder / safetensors_hf.INDEX).read_text())
  files = sorted(folder.glob("*.safetensors"))
  assert len(files) > 3
  assert files[0].name == f"model-00001-of-{len(files):05d}.safetensors"
  assert {f.name for f in files} == set(index["weight_map"].values())
  total = sum(array.nbytes for array in arrays.values())
  assert index["metadata"]["total_size"] == total
  assert all(f.stat().st_size < 80_000 + 4096 for f in files)


def test_lazy_tensors_and_jax_arrays_can_be_written(tmp_path):
  import jax.numpy as jnp

  arrays = checkpoints.random_arrays(_SIZES, dtype=ml_dtypes.bfloat16)
  first = safetensors_writer.write_hugging_face(
    tmp_path / "a", {n: jnp.asarray(a) for n, a in arrays.items()}, _config()
  )
  lazy = safetensors_hf.open_hugging_face(first).tensors
  second = safetensors_writer.write_hugging_face(
    tmp_path / "b", lazy, _config()
  )
  for name in ("model.safetensors", "config.json"):
    assert (first / name).read_bytes() == (second / name).read_bytes()


def test_config(tmp_path):
  arrays = checkpoints.random_arrays(_SIZES, dtype=ml_dtypes.bfloat16)
  folder = safetensors_writer.write_hugging_face(
    tmp_path / "m", arrays, _config(rope_factor=8)
  )
  config = json.loads((folder / "config.json").read_text())
  assert config["model_type"] == "gemma3_text"
  assert config["num_hidden_layers"] == 7
  assert config["num_key_value_heads"] == 2
  assert config["intermediate_size"] == 96
  assert config["torch_dtype"] == "bfloat16"
  assert config["rope_scaling"] == {"rope_type": "linear", "factor": 8.0}
  assert _config()["rope_scaling"] is None


def test_tokenizer_is_copied(tmp_path):
  arrays = checkpoints.random_arrays(_SIZES)
  (tmp_path / "tokenizer.model").write_bytes(b"pieces")
  folder = safetensors_writer.write_hugging_face(
    tmp_path / "m",
    arrays,
    _config(),
    tokenizer=tmp_path / "tokenizer.model",
  )
  assert (folder / "tokenizer.model").read_bytes() == b"pieces"


def test_existing_folder_is_kept(tmp_path):
  (tmp_path / "m").mkdir()
  (tmp_path / "m" / "mine").write_text("x")
  arrays = checkpoints.random_arrays(_SIZES)
  with pytest.raises(errors.CheckpointError, match="already exists"):
    safetensors_writer.write_hugging_face(tmp_path / "m", arrays, _config())
  assert [p.name for p in (tmp_path / "m").iterdir()] == ["mine"]


def test_nothing_is_left_half_written(tmp_path, monkeypatch):
  arrays = checkpoints.random_arrays(_SIZES)

  def full(handle):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(os, "fsync", full)
  with pytest.raises(OSError, match="No space left"):
    safetensors_writer.write_hugging_face(tmp_path / "m", arrays, _config())
  assert list(tmp_path.iterdir()) == []


def test_incomplete_tensors_are_refused(tmp_path):
  arrays = checkpoints.random_arrays(_SIZES)
  del arrays["layer_6/mlp/linear"]
  with pytest.raises(errors.CheckpointError, match="missing layer_6/mlp/line"):
    safetensors_writer.write_hugging_face(tmp_path / "m", arrays, _config())
  assert list(tmp_path.iterdir()) == []


@pytest.mark.peers
@pytest.mark.parametrize("most", [10**9, 40_000])
def test_transformers_loads_it(tmp_path, most):
  torch = pytest.importorskip("torch")
  transformers = pytest.importorskip("transformers")
  arrays = checkpoints.random_arrays(_SIZES)
  folder = safetensors_writer.write_hugging_face(
    tmp_path / "m", arrays, _config(8), max_shard_bytes=most
  )
  model, info = transformers.Gemma3ForCausalLM.from_pretrained(
    folder, output_loading_info=True
  )
  assert not info["missing_keys"]
  assert not info["unexpected_keys"]
  assert not info["mismatched_keys"]
  state = model.state_dict()
  for name, matrix in checkpoints.hugging_face_matrices(arrays).items():
    found = state[f"model.{name}"].to(torch.float32).numpy()
    np.testing.assert_array_equal(found, matrix, err_msg=name)
  rope = model.config.rope_parameters["full_attention"]
  assert (rope["rope_type"], rope["factor"]) == ("linear", 8.0)
  kinds = [kind == "full_attention" for kind in model.config.layer_types]
  assert kinds == [False] * 5 + [True, False]
