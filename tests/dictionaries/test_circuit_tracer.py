"""circuit-tracer's own files give circuit-tracer's own numbers."""

import numpy as np
import pytest
import safetensors.numpy

from gemma_scope.dictionaries.circuit_tracer import (
  circuit_tracer_to_dictionaries,
)
from gemma_scope.errors import CheckpointError, ConfigError, SiteError
from gemma_scope.sites import Site
from tests.dictionaries.golden import golden, names

NAMES = names("circuit_tracer")
SETS = [name for name in NAMES if "transcoders" in name]


def folder_of(name, tmp_path, change=lambda files: None, config=None):
  stored = golden(f"circuit_tracer/{name}")
  contents = {}
  for key, array in stored.items():
    if key.startswith("file/"):
      _, file, tensor = key.split("/")
      contents.setdefault(file, {})[tensor] = array
  change(contents)
  for file, tensors in contents.items():
    safetensors.numpy.save_file(tensors, tmp_path / file)
  (tmp_path / "config.yaml").write_text(config or str(stored["config"]))
  return stored


@pytest.mark.parametrize("name", SETS)
def test_set_is_circuit_tracer(name, tmp_path):
  stored = folder_of(name, tmp_path)
  transcoders = circuit_tracer_to_dictionaries(tmp_path)
  assert len(transcoders) == 3
  for i, each in enumerate(transcoders):
    x = stored["x"][i]
    np.testing.assert_allclose(each.encode(x), stored["latents"][i], atol=1e-5)
    np.testing.assert_allclose(each(x), stored["output"][i], atol=1e-5)
    assert each.sites_in == (Site("mlp_in", i),)
    assert each.sites_out == (Site("mlp_write", i),)
    assert each.about.model == "gemma-3-270m"


@pytest.mark.parametrize("name", [n for n in NAMES if n not in SETS])
def test_clt_is_circuit_tracer(name, tmp_path):
  stored = folder_of(name, tmp_path)
  clt = circuit_tracer_to_dictionaries(tmp_path)
  np.testing.assert_allclose(
    clt.encode(stored["x"]), stored["latents"], atol=1e-5
  )
  np.testing.assert_allclose(clt(stored["x"]), stored["output"], atol=1e-5)
  assert clt.causal
  assert clt.sites_in == tuple(Site("mlp_in", i) for i in range(3))


def test_missing_layer(tmp_path):
  folder_of("clt", tmp_path, lambda files: files.pop("W_enc_1.safetensors"))
  with pytest.raises(CheckpointError, match=r"layers \[0, 2\]"):
    circuit_tracer_to_dictionaries(tmp_path)


def test_missing_decoder(tmp_path):
  folder_of("clt", tmp_path, lambda files: files.pop("W_dec_1.safetensors"))
  with pytest.raises(CheckpointError, match="W_dec_1"):
    circuit_tracer_to_dictionaries(tmp_path)


def test_decoder_of_another_layer(tmp_path):
  def swap(files):
    files["W_dec_1.safetensors"] = {
      "W_dec_1": files["W_dec_2.safetensors"]["W_dec_2"]
    }

  folder_of("clt", tmp_path, swap)
  with pytest.raises(CheckpointError, match="W_dec is float32"):
    circuit_tracer_to_dictionaries(tmp_path)


def test_negative_threshold(tmp_path):
  def change(files):
    files["W_enc_2.safetensors"]["threshold_2"][3] = -0.5

  folder_of("clt", tmp_path, change)
  with pytest.raises(ConfigError, match=r"thresholds down to -0\.5"):
    circuit_tracer_to_dictionaries(tmp_path)


@pytest.mark.parametrize(
  ("config", "error", "says"),
  [
    ("model_kind: other", ConfigError, "model_kind='other'"),
    ("[1", CheckpointError, r"config\.yaml"),
    ("model_kind: transcoder_set", SiteError, "without feature_input_hook"),
    (
      "{model_kind: transcoder_set, feature_input_hook: ln2.hook_normalized,"
      " feature_output_hook: hook_mlp_out}",
      SiteError,
      "gain",
    ),
  ],
)
def test_config(config, error, says, tmp_path):
  folder_of("transcoders", tmp_path, config=config)
  with pytest.raises(error, match=says):
    circuit_tracer_to_dictionaries(tmp_path)


def test_no_config(tmp_path):
  with pytest.raises(CheckpointError, match="No such file"):
    circuit_tracer_to_dictionaries(tmp_path)
