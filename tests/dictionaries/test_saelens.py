"""SAELens's own files give SAELens's own numbers."""

import json

import numpy as np
import pytest

from gemma_scope.dictionaries.saelens import saelens_to_dictionary
from gemma_scope.errors import CheckpointError, ConfigError, SiteError
from gemma_scope.testing import dictionary_files as files
from tests.dictionaries.golden import golden, names

NAMES = names("saelens")


def folder_of(name, tmp_path):
  stored = golden(f"saelens/{name}")
  arrays = {k[5:]: v for k, v in stored.items() if k.startswith("file/")}
  config = json.loads(str(stored["config"]))
  return files.write_saelens(tmp_path / name, arrays, config), stored


def write(tmp_path, **changes):
  arrays = {
    "W_enc": np.ones((4, 6), np.float32),
    "b_enc": np.ones(6, np.float32),
    "W_dec": np.ones((6, 4), np.float32),
    "b_dec": np.ones(4, np.float32),
  }
  config = {
    "architecture": "standard",
    "metadata": {"hook_name": "blocks.2.hook_resid_post"},
  }
  return files.write_saelens(tmp_path / "sae", arrays, {**config, **changes})


@pytest.mark.parametrize("name", NAMES)
def test_is_saelens(name, tmp_path):
  folder, stored = folder_of(name, tmp_path)
  dictionary = saelens_to_dictionary(folder)
  latents = dictionary.encode(stored["x"])
  np.testing.assert_allclose(latents, stored["latents"], atol=1e-5)
  np.testing.assert_allclose(
    dictionary(stored["x"]), stored["output"], atol=1e-5
  )
  assert dictionary.about.model == "gemma-3-270m"
  ends = str(dictionary.sites_in[0]), str(dictionary.sites_out[0])
  if "transcoder" in name:
    assert ends == ("mlp_in[3]", "mlp_write[3]")
  else:
    assert ends == ("resid_post[3]", "resid_post[3]")


def test_every_architecture_has_a_golden():
  assert len(NAMES) == 11


def test_old_top_k(tmp_path):
  options = {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 3}}
  dictionary = saelens_to_dictionary(write(tmp_path, **options))
  assert dictionary.activation.k == 3


@pytest.mark.parametrize(
  ("changes", "says"),
  [
    ({"architecture": "temporal"}, "temporal with relu"),
    ({"activation_fn": "tanh-relu"}, "standard with tanh-relu"),
    ({"normalize_activations": "layer_norm"}, "while it runs"),
    ({"normalize_activations": "expected_average_only_in"}, "not folded in"),
  ],
)
def test_what_is_not_read(changes, says, tmp_path):
  with pytest.raises(ConfigError, match=says):
    saelens_to_dictionary(write(tmp_path, **changes))


def test_top_k_without_k(tmp_path):
  with pytest.raises(CheckpointError, match="lacks its k"):
    saelens_to_dictionary(write(tmp_path, architecture="topk"))


def test_no_hook(tmp_path):
  with pytest.raises(SiteError, match="where the dictionary belongs"):
    saelens_to_dictionary(write(tmp_path, metadata={}))


def test_trap_hook(tmp_path):
  hook = {"hook_name": "blocks.2.ln2.hook_normalized"}
  with pytest.raises(SiteError, match="mlp_in"):
    saelens_to_dictionary(write(tmp_path, metadata=hook))


def test_damaged_config(tmp_path):
  folder = write(tmp_path)
  (folder / "cfg.json").write_text("{")
  with pytest.raises(CheckpointError, match=r"cfg\.json"):
    saelens_to_dictionary(folder)


def test_missing_weights(tmp_path):
  folder = write(tmp_path)
  (folder / "sae_weights.safetensors").unlink()
  with pytest.raises(CheckpointError, match="No such file"):
    saelens_to_dictionary(folder)
