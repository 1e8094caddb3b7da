"""A model on a mesh of eight devices gives the values of one."""

import dataclasses

import jax
from jax.sharding import Mesh
import numpy as np
import pytest

import gemma_scope as gs
from gemma_scope import testing
from gemma_scope.model.build import random_tensors
from gemma_scope.model.convert import tensors_to_gemma
from gemma_scope.testing.tiny import tiny_config

SITES = [
  *("embed", "resid_post[:]", "query[1]", "value[1]", "z[:]", "mlp_act[2]"),
  "logits",
]
PATTERNS = ["pattern[0]", "pattern[5]"]
TEXTS = [" the capital of France is", " Mary", " the", " of France Mary"]


@pytest.fixture(scope="module")
def one():
  return testing.tiny_lm(tiny_config(num_layers=7, window=4))


def on_mesh(lm, data, model, *, scan=True):
  devices = np.array(jax.devices()[: data * model]).reshape(data, model)
  mesh = Mesh(devices, ("data", "model"))
  tensors = random_tensors(lm.config, seed=0)
  return lm.replace(tensors_to_gemma(tensors, lm.config, mesh=mesh, scan=scan))


@pytest.mark.parametrize("sites", [SITES, PATTERNS], ids=["blocks", "patterns"])
@pytest.mark.parametrize(
  ("data", "model", "scan"), [(2, 4, True), (4, 2, False), (8, 1, True)]
)
def test_captured_values_are_those_of_one_device(one, data, model, scan, sites):
  expected = gs.capture(one, TEXTS, sites)
  found = gs.capture(on_mesh(one, data, model, scan=scan), TEXTS, sites)
  for site, value in expected.items():
    names = tuple(value.named_axes)
    want, have = (np.asarray(a[site].unwrap(*names)) for a in (expected, found))
    np.testing.assert_allclose(
      have, want, atol=1e-5 * np.abs(want).max(), err_msg=str(site)
    )


def test_captured_sites_keep_their_shards(one):
  found = gs.capture(on_mesh(one, 2, 4), TEXTS, ["resid_post[3]", "z[3]"])
  specs = {str(s): v.data_array.sharding.spec for s, v in found.items()}
  assert specs["resid_post[3]"][0] == "data"
  assert specs["z[3]"][0] == "data"
  assert "model" in specs["z[3]"]


def test_one_long_row_is_split_by_position(one):
  ids = np.arange(2, 34)  # 32 tokens, so that four parts are equal
  found = gs.capture(on_mesh(one, 4, 2), ids, ["resid_post[3]"])
  value = found["resid_post[3]"].data_array
  assert tuple(value.sharding.spec)[:2] == (None, "data")
  expected = gs.capture(one, ids, ["resid_post[3]"])["resid_post[3]"]
  np.testing.assert_allclose(value, expected.data_array, atol=1e-4)


def test_relevance_is_that_of_one_device(one):
  target = gs.attribution.logit(7)
  sites = ["embed", "resid_post[:]", "z[2]"]
  runs = [
    gs.attribute(lm, TEXTS, target, method="attn_lrp", at=sites)
    for lm in (one, on_mesh(one, 2, 4))
  ]
  for site in runs[0]:
    want, have = (np.asarray(run[site].data_array) for run in runs)
    np.testing.assert_allclose(
      have, want, atol=1e-4 * np.abs(want).max(), err_msg=str(site)
    )


def test_sharded_models_generate_the_same_text(one):
  runs = [
    gs.generate(lm, TEXTS, max_new_tokens=4) for lm in (one, on_mesh(one, 4, 2))
  ]
  assert runs[0].ids == runs[1].ids
  assert dataclasses.is_dataclass(runs[0])
