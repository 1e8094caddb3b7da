"""Fixture files have the published names, dtypes and shapes."""

import numpy as np
import safetensors

from gemma_scope.testing import dictionary_files as files


def names_of(path):
  with safetensors.safe_open(path, "numpy") as stored:
    return {n: stored.get_slice(n).get_shape() for n in stored.keys()}  # noqa: SIM118


def test_single(tmp_path):
  arrays = files.random_layer(4, 6, 5, affine=True)
  folder = files.write_single(tmp_path, arrays, {"type": "transcoder"})
  assert names_of(folder / "params.safetensors") == {
    "w_enc": [4, 6],
    "b_enc": [6],
    "threshold": [6],
    "w_dec": [6, 5],
    "b_dec": [5],
    "affine_skip_connection": [4, 5],
  }
  assert (folder / "config.json").is_file()


def test_layers_are_causal(tmp_path):
  layers = files.random_layers(3, 4, 6)
  folder = files.write_layers(tmp_path, layers)
  assert names_of(folder / "params_layer_2.safetensors")["w_dec"] == [6, 3, 4]
  assert not layers[2]["w_dec"][:, :2].any()
  assert layers[2]["w_dec"][:, 2].all()


def test_examples(tmp_path):
  arrays = files.write_examples(tmp_path, 3)
  assert arrays["tokens"].dtype == np.int32
  assert arrays["logit_effects"].shape == (3, 1000)


def test_hub_cache(tmp_path):
  folder = files.write_single(tmp_path / "x", files.random_layer(4, 6, 4))
  place = files.fill_hub_cache(tmp_path / "hub", "a/b", folder, "c/d")
  assert (place / "params.safetensors").is_file()
  ref = tmp_path / "hub/models--a--b/refs/main"
  assert ref.read_text() in place.parts
