"""All five kinds in the exact published layout, and what can be wrong."""

import json
import re

import jax
import numpy as np
import pytest

from gemma_scope.dictionaries import CrossLayer, Sae, Transcoder
from gemma_scope.dictionaries.arrays import is_mapped, place
from gemma_scope.dictionaries.gemma_scope_2 import (
  gemma_scope_2_to_dictionary,
  is_gemma_scope_2,
)
from gemma_scope.errors import CheckpointError, SiteError
from gemma_scope.sites import Site
from gemma_scope.testing import dictionary_files as files

RNG = np.random.default_rng(0)


def forward(arrays, x):
  """The published forward pass of one file, in float64."""
  pre = x.astype(float) @ arrays["w_enc"] + arrays["b_enc"]
  f = np.maximum(pre, 0) * (pre > arrays["threshold"])
  y = f @ arrays["w_dec"].reshape(len(arrays["b_enc"]), -1)
  y = y + arrays["b_dec"]
  if "affine_skip_connection" in arrays:
    y = y + x @ arrays["affine_skip_connection"]
  return f, y


def forward_layers(layers, x):
  """The published forward pass of a multi-layer dictionary, as loops."""
  count = len(layers)
  fs = []
  for a, v in zip(layers, x):
    pre = v.astype(float) @ a["w_enc"] + a["b_enc"]
    fs.append(np.maximum(pre, 0) * (pre > a["threshold"]))
  out = []
  for j in range(count):
    y = np.zeros(x[j].shape) + layers[j]["b_dec"]
    for i in range(count):
      for m in range(fs[i].shape[1]):
        y += fs[i][:, m : m + 1] * layers[i]["w_dec"][m, j]
    if "affine_skip_connection" in layers[j]:
      y += x[j] @ layers[j]["affine_skip_connection"]
    out.append(y)
  return np.stack(fs), np.stack(out)


ROWS = {
  "resid_post": ("resid_post/layer_12_width_16k_l0_medium", 40, 40),
  "resid_post_all": ("resid_post_all/layer_3_width_262k_l0_big", 40, 40),
  "attn_out": ("attn_out/layer_5_width_16k_l0_small", 64, 64),
  "mlp_out": ("mlp_out/layer_9_width_65k_l0_big_seed_1", 40, 40),
  "transcoder": ("transcoder/layer_9_width_16k_l0_medium", 40, 48),
  "affine": ("transcoder_all/layer_2_width_16k_l0_small_affine", 40, 40),
}
SITES = {
  "resid_post": ("resid_post[12]", "resid_post[12]"),
  "resid_post_all": ("resid_post[3]", "resid_post[3]"),
  "attn_out": ("z[5]", "z[5]"),
  "mlp_out": ("mlp_write[9]", "mlp_write[9]"),
  "transcoder": ("mlp_in[9]", "mlp_write[9]"),
  "affine": ("mlp_in[2]", "mlp_write[2]"),
}
HOOKS = {
  "resid_post": "model.layers.12.output",
  "attn_out": "model.layers.5.self_attn.o_proj.input",
  "mlp_out": "model.layers.9.post_feedforward_layernorm.output",
}


@pytest.mark.parametrize("row", ROWS)
def test_single_layer_without_config(row, tmp_path):
  name, d_in, d_out = ROWS[row]
  arrays = files.random_layer(d_in, 96, d_out, affine=row == "affine")
  folder = files.write_single(tmp_path / name, arrays)
  assert is_gemma_scope_2(folder)
  dictionary = gemma_scope_2_to_dictionary(folder)
  assert type(dictionary) is (Transcoder if "trans" in name else Sae)
  ends = (*dictionary.sites_in, *dictionary.sites_out)
  assert tuple(map(str, ends)) == SITES[row]
  assert is_mapped(dictionary)
  x = RNG.standard_normal((9, d_in)).astype(np.float32)
  f, y = forward(arrays, x)
  np.testing.assert_allclose(dictionary.encode(x), f, atol=1e-5)
  np.testing.assert_allclose(dictionary(x), y, atol=1e-4)
  np.testing.assert_array_equal(dictionary(x), place(dictionary)(x))


@pytest.mark.parametrize("row", HOOKS)
@pytest.mark.parametrize(
  "model", ["google/gemma-3-270m-pt", "gemma-v3-270m-pt", "gemma-3-270m"]
)
def test_config_says_it_where_the_name_does_not(row, model, tmp_path):
  arrays = files.random_layer(40, 96, 40)
  config = {
    "hf_hook_point_in": HOOKS[row],
    "hf_hook_point_out": HOOKS[row],
    "width": 96,
    "model_name": model,
    "architecture": "jump_relu",
    "l0": 47,
    "affine_connection": False,
    "type": "sae",
  }
  folder = files.write_single(tmp_path / "mine", arrays, config)
  about = gemma_scope_2_to_dictionary(folder).about
  assert str(about.sites_in[0]) == SITES[row][0]
  assert (about.l0, about.model, about.heads) == (47, "gemma-3-270m", 4)


def test_published_name_tells_model_and_l0(tmp_path):
  name = "gemma-scope-2-1b-it/transcoder/layer_13_width_16k_l0_medium_affine"
  arrays = files.random_layer(40, 96, 40, affine=True)
  folder = files.write_single(tmp_path / name, arrays)
  about = gemma_scope_2_to_dictionary(folder).about
  assert about.model == "gemma-3-1b-it"
  assert about.l0 == 60  # 30 + 30 * min(1, 3 * 13 / 26)
  assert about.name == name


@pytest.mark.parametrize("affine", [False, True])
def test_clt_is_the_published_loop(affine, tmp_path):
  layers = files.random_layers(4, 24, 32, affine=affine)
  name = "clt/width_262k_l0_big" + ("_affine" if affine else "")
  clt = gemma_scope_2_to_dictionary(files.write_layers(tmp_path / name, layers))
  assert isinstance(clt, CrossLayer)
  assert clt.causal
  assert clt.about.kind == "clt"
  assert clt.sites_in == tuple(Site("mlp_in", i) for i in range(4))
  assert clt.sites_out == tuple(Site("mlp_write", i) for i in range(4))
  widths = [part.w_dec.named_shape["layer"] for part in clt.parts]
  assert widths == [4, 3, 2, 1]
  x = RNG.standard_normal((4, 6, 24)).astype(np.float32)
  f, y = forward_layers(layers, x)
  np.testing.assert_allclose(clt.encode(x), f, atol=1e-5)
  for one in (clt, place(clt), jax.jit(lambda v: place(clt)(v))):
    np.testing.assert_allclose(one(x), y, atol=2e-4)


@pytest.mark.parametrize("causal", [True, False])
def test_crosscoder_is_the_published_loop(causal, tmp_path):
  layers = files.random_layers(4, 24, 32)
  if not causal:
    layers = [files.random_layer(24, 32, 4, 24, seed=i) for i in range(4)]
  name = "crosscoder/layer_5_9_12_15_width_65k_l0_medium"
  folder = files.write_layers(tmp_path / name, layers)
  crosscoder = gemma_scope_2_to_dictionary(folder)
  assert crosscoder.causal == causal
  wanted = tuple(Site("resid_post", i) for i in (5, 9, 12, 15))
  assert crosscoder.sites_in == crosscoder.sites_out == wanted
  x = RNG.standard_normal((4, 6, 24)).astype(np.float32)
  f, y = forward_layers(layers, x)
  np.testing.assert_allclose(crosscoder.encode(x), f, atol=1e-5)
  np.testing.assert_allclose(crosscoder(x), y, atol=2e-4)
  latents = [crosscoder.encode_at(i, x[i]) for i in range(4)]
  for j in range(4):
    at_j = latents[: j + 1] if causal else latents
    np.testing.assert_allclose(
      crosscoder.rebuild_at(j, at_j, x[j]), y[j], atol=2e-4
    )


def test_rebuild_at_wants_the_latents_of_all_that_write(tmp_path):
  layers = files.random_layers(3, 24, 32)
  folder = files.write_layers(tmp_path / "clt/width_262k_l0_big", layers)
  clt = gemma_scope_2_to_dictionary(folder)
  x = np.zeros((2, 24), np.float32)
  with pytest.raises(SiteError, match="Latents of a layer that writes"):
    clt.rebuild_at(2, [clt.encode_at(0, x)], x)


def test_clt_that_writes_backwards_is_refused(tmp_path):
  layers = files.random_layers(3, 24, 32)
  layers[2]["w_dec"][7, 0, 3] = 1e-3
  folder = files.write_layers(tmp_path / "clt/width_262k_l0_big", layers)
  with pytest.raises(CheckpointError, match=r"writes to layers before its own"):
    gemma_scope_2_to_dictionary(folder)


def test_clt_with_shifted_slots_is_told_apart(tmp_path):
  layers = files.random_layers(3, 24, 32)
  for i, arrays in enumerate(layers):
    arrays["w_dec"] = np.roll(arrays["w_dec"], -i, axis=1)
  folder = files.write_layers(tmp_path / "clt/width_262k_l0_big", layers)
  with pytest.raises(CheckpointError, match=r"its last slots are zero instead"):
    gemma_scope_2_to_dictionary(folder)


@pytest.mark.parametrize("kept", [0, 7, 200, -4])
def test_truncated_file(kept, tmp_path):
  name = "resid_post/layer_12_width_16k_l0_medium"
  folder = files.write_single(tmp_path / name, files.random_layer(40, 96, 40))
  path = folder / "params.safetensors"
  path.write_bytes(path.read_bytes()[:kept])
  with pytest.raises(CheckpointError, match="cut off or corrupt"):
    gemma_scope_2_to_dictionary(folder)


@pytest.mark.parametrize(
  ("change", "says"),
  [
    ({"w_dec": np.zeros((95, 40), np.float32)}, r"(?s)w_dec is .*m=96"),
    ({"threshold": np.zeros((96, 1), np.float32)}, r"threshold is .*96, 1"),
    ({"w_enc": np.zeros((40, 96), np.int32)}, r"w_enc is int32"),
    ({"b_dec": np.zeros(41, np.float32)}, r"b_dec is .*41"),
    ({"affine_skip_connection": np.zeros((40, 40), np.float32)}, "in an SAE"),
    ({"b_enc": None}, "no b_enc among"),
  ],
)
def test_wrong_tensors(change, says, tmp_path):
  arrays = {**files.random_layer(40, 96, 40), **change}
  arrays = {n: a for n, a in arrays.items() if a is not None}
  name = "resid_post/layer_12_width_16k_l0_medium"
  folder = files.write_single(tmp_path / name, arrays)
  with pytest.raises(CheckpointError, match=says):
    gemma_scope_2_to_dictionary(folder)


def test_missing_layer_file(tmp_path):
  name = "clt/width_262k_l0_big"
  layers = files.random_layers(3, 24, 32)
  folder = files.write_layers(tmp_path / name, layers)
  (folder / "params_layer_1.safetensors").unlink()
  with pytest.raises(CheckpointError, match=r"no params_layer_1\.safetensors"):
    gemma_scope_2_to_dictionary(folder)


def test_last_layer_file_missing_shows_in_the_decoder(tmp_path):
  name = "clt/width_262k_l0_big"
  layers = files.random_layers(3, 24, 32)
  folder = files.write_layers(tmp_path / name, layers)
  (folder / "params_layer_2.safetensors").unlink()
  with pytest.raises(CheckpointError, match=r"w_dec is .*\(32, 3, 24\)"):
    gemma_scope_2_to_dictionary(folder)


def test_too_few_files_for_the_named_layers(tmp_path):
  name = "crosscoder/layer_5_9_12_15_width_65k_l0_medium"
  layers = files.random_layers(3, 24, 32)
  folder = files.write_layers(tmp_path / name, layers)
  with pytest.raises(CheckpointError, match="3 params_layer files"):
    gemma_scope_2_to_dictionary(folder)


def test_name_and_config_disagree(tmp_path):
  arrays = files.random_layer(40, 96, 40)
  config = {"hf_hook_point_in": "model.layers.9.output", "type": "sae"}
  name = "resid_post/layer_12_width_16k_l0_medium"
  folder = files.write_single(tmp_path / name, arrays, config)
  message = r"resid_post\[9\] by config.json, resid_post\[12\] by name"
  with pytest.raises(SiteError, match=message):
    gemma_scope_2_to_dictionary(folder)


def test_neither_name_nor_config(tmp_path):
  arrays = files.random_layer(40, 96, 40)
  folder = files.write_single(tmp_path / "download", arrays)
  with pytest.raises(SiteError, match="cannot be told"):
    gemma_scope_2_to_dictionary(folder)
  named = gemma_scope_2_to_dictionary(
    folder, name="mlp_out/layer_2_width_16k_l0_small"
  )
  assert str(named.sites_in[0]) == "mlp_write[2]"


@pytest.mark.parametrize("text", ["{", "[1]", '"no"'])
def test_damaged_config(text, tmp_path):
  name = "resid_post/layer_12_width_16k_l0_medium"
  folder = files.write_single(tmp_path / name, files.random_layer(40, 96, 40))
  (folder / "config.json").write_text(text)
  with pytest.raises(CheckpointError, match=r"config.json cannot be read"):
    gemma_scope_2_to_dictionary(folder)


def test_hooks_of_several_layers(tmp_path):
  layers = files.random_layers(4, 24, 32)
  for hooks in (
    [f"model.layers.{i}.pre_feedforward_layernorm.output" for i in range(4)],
    "model.layers.{layer}.pre_feedforward_layernorm.output",
  ):
    out = json.loads(json.dumps(hooks).replace("pre_", "post_"))
    config = {"hf_hook_point_in": hooks, "hf_hook_point_out": out}
    folder = tmp_path / re.sub(r"\W", "", str(hooks))[:20]
    files.write_layers(folder, layers, {**config, "type": "clt"})
    clt = gemma_scope_2_to_dictionary(folder)
    assert clt.sites_in == tuple(Site("mlp_in", i) for i in range(4))
    assert clt.sites_out == tuple(Site("mlp_write", i) for i in range(4))
