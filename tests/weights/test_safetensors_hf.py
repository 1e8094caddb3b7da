"""Hugging Face folders: every layout, and every way to be wrong."""

import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from gemma_scope import errors
from gemma_scope.testing import checkpoints
from gemma_scope.weights import catalog, safetensors_hf


@pytest.fixture
def arrays():
  sizes = checkpoints.tiny_sizes(3)
  return checkpoints.random_arrays(sizes, dtype=ml_dtypes.bfloat16)


def _same(opened, arrays):
  assert opened.tensors.keys() == arrays.keys()
  for name, array in arrays.items():
    tensor = opened.tensors[name]
    assert (tensor.shape, tensor.dtype) == (array.shape, array.dtype)
    found = tensor.read()
    assert (found.shape, found.dtype) == (array.shape, array.dtype)
    np.testing.assert_array_equal(found, array, err_msg=name)


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize(
  "prefix", ["model.", "language_model.model.", "model.language_model.", ""]
)
def test_prefixes_and_shards(arrays, tmp_path, prefix, shards):
  folder = checkpoints.write_safetensors(
    tmp_path / "m", arrays, prefix=prefix, shards=shards
  )
  opened = safetensors_hf.open_hugging_face(folder)
  assert opened.format == "safetensors"
  assert opened.source == str(folder)
  _same(opened, arrays)


@pytest.mark.parametrize(
  "prefix", ["language_model.model.", "model.language_model."]
)
def test_multimodal(arrays, tmp_path, prefix, monkeypatch):
  monkeypatch.setattr(catalog, "VOCABULARY", 160)
  folder = checkpoints.write_safetensors(
    tmp_path / "m", arrays, prefix=prefix, shards=2, multimodal=True
  )
  _same(safetensors_hf.open_hugging_face(folder), arrays)


def test_a_single_file(arrays, tmp_path):
  folder = checkpoints.write_safetensors(tmp_path / "m", arrays)
  _same(safetensors_hf.open_hugging_face(folder / "model.safetensors"), arrays)
  (folder / "config.json").unlink()
  (folder / "model.safetensors").rename(folder / "other.name")
  _same(safetensors_hf.open_hugging_face(folder / "other.name"), arrays)


def test_matrices_are_mapped(arrays, tmp_path):
  folder = checkpoints.write_safetensors(tmp_path / "m", arrays)
  tensors = safetensors_hf.open_hugging_face(folder).tensors
  found = tensors["embedder/input_embedding"].read()
  assert isinstance(found, np.memmap)
  assert isinstance(tensors["layer_0/mlp/linear"].read(), np.memmap)


@pytest.mark.parametrize("name", ["tokenizer.model", "tokenizer.json"])
def test_tokenizer(arrays, tmp_path, name):
  folder = checkpoints.write_safetensors(tmp_path / "m", arrays)
  assert safetensors_hf.open_hugging_face(folder).tokenizer is None
  (folder / name).write_bytes(b"x")
  found = safetensors_hf.open_hugging_face(folder).tokenizer
  assert found == str(folder / name)


def test_missing_shard(arrays, tmp_path):
  folder = checkpoints.write_safetensors(tmp_path / "m", arrays, shards=3)
  (folder / "model-00002-of-00003.safetensors").unlink()
  with pytest.raises(errors.CheckpointError, match="missing model-00002-of-0"):
    safetensors_hf.open_hugging_face(folder)


def test_shard_of_another_revision(arrays, tmp_path):
  folder = checkpoints.write_safetensors(tmp_path / "m", arrays, shards=2)
  file = folder / "model-00002-of-00002.safetensors"
  safetensors.numpy.save_file({"model.other": np.ones(2, np.float32)}, file)
  with pytest.raises(errors.CheckpointError, match="not hold what the index"):
    safetensors_hf.open_hugging_face(folder)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": 3}'])
def test_broken_index(arrays, tmp_path, text):
  folder = checkpoints.write_safetensors(tmp_path / "m", arrays, shards=2)
  (folder / safetensors_hf.INDEX).write_text(text)
  with pytest.raises(errors.CheckpointError, match="index of the shards"):
    safetensors_hf.open_hugging_face(folder)


def _configure(folder, **fields):
  path = folder / "config.json"
  config = json.loads(path.read_text()) | fields
  path.write_text(json.dumps(config))


@pytest.mark.parametrize(
  ("fields", "match"),
  [
    ({"model_type": "gemma2"}, "model_type 'gemma2'"),
    ({"num_hidden_layers": 18}, "3 layers, config.json says 18"),
  ],
)
def test_config_of_another_model(arrays, tmp_path, fields, match):
  folder = checkpoints.write_safetensors(tmp_path / "m", arrays)
  _configure(folder, **fields)
  with pytest.raises(errors.CheckpointError, match=match):
    safetensors_hf.open_hugging_face(folder)


@pytest.mark.parametrize("text", ["", "[1]", '{"text_config": 3}', "\xff"])
def test_broken_config(arrays, tmp_path, text):
  folder = checkpoints.write_safetensors(tmp_path / "m", arrays)
  (folder / "config.json").write_bytes(text.encode("latin-1"))
  with pytest.raises(errors.CheckpointError, match=r"config.json cannot be re"):
    safetensors_hf.open_hugging_face(folder)


def test_untied_output(arrays, tmp_path):
  folder = checkpoints.write_safetensors(tmp_path / "m", arrays)
  stored = safetensors.numpy.load_file(folder / "model.safetensors")
  stored["lm_head.weight"] = stored["model.embed_tokens.weight"].copy()
  safetensors.numpy.save_file(stored, folder / "model.safetensors")
  _configure(folder, tie_word_embeddings=False)
  _same(safetensors_hf.open_hugging_face(folder), arrays)
  stored["lm_head.weight"][3, 4] += 1
  safetensors.numpy.save_file(stored, folder / "model.safetensors")
  with pytest.raises(errors.CheckpointError, match="not tied"):
    safetensors_hf.open_hugging_face(folder)


def test_quantised_weights_are_unknown(arrays, tmp_path):
  folder = checkpoints.write_safetensors(tmp_path / "m", arrays)
  stored = safetensors.numpy.load_file(folder / "model.safetensors")
  stored["model.layers.0.mlp.up_proj.weight_scale"] = np.ones(3, np.float32)
  safetensors.numpy.save_file(stored, folder / "model.safetensors")
  with pytest.raises(errors.CheckpointError, match="weight_scale"):
    safetensors_hf.open_hugging_face(folder)


def test_folder_without_weights(tmp_path):
  with pytest.raises(errors.CheckpointError, match=r"missing \*.safetensors"):
    safetensors_hf.open_hugging_face(tmp_path)


def test_adapters_are_no_weights(tmp_path):
  array = {"a": np.ones(2, np.float32)}
  safetensors.numpy.save_file(array, tmp_path / "adapter_model.safetensors")
  assert safetensors_hf.weight_files(tmp_path) == []
