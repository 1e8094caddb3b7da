"""An opened norm computes the same; its factor is 1 / rms."""

import jax
import numpy as np
import pytest

from gemma_scope.model.build import abstract_gemma
from gemma_scope.model.convert import gemma_to_tensors
from gemma_scope.model.norms import RMSNorm
from gemma_scope.sites import NORMED, Site, info_of
from gemma_scope.surgery import tap
from gemma_scope.surgery.norm_sites import OpenNorm, open_norms
from gemma_scope.testing.tiny import tiny_config
from tests.surgery.stand_ins import close, values

SOURCES = {
  "attn_in": "resid_pre",
  "attn_write": "attn_proj",
  "mlp_in": "resid_mid",
  "mlp_write": "mlp_proj",
}
PARTS = [
  f"{n}{'[4]' if info_of(n).per_layer else ''}.inverse_rms" for n in NORMED
]


def count(model, kind):
  found = []
  jax.tree_util.tree_flatten(
    model, is_leaf=lambda n: isinstance(n, kind) and not found.append(n)
  )
  return len(found)


def test_the_same_numbers_and_the_factor(double, model):
  found = values(model, [*PARTS, "resid_post[7]", "logits"])
  expected = double.oracle()
  close(found["resid_post[7]"][0], expected[Site("resid_post", 7)])
  close(found["logits"][0], expected[Site("logits")])
  for name, source in SOURCES.items():
    x = expected[Site(source, 4)]
    factor = 1 / np.sqrt((x**2).mean(axis=-1) + 1e-6)
    part = found[f"{name}[4].inverse_rms"][0]
    np.testing.assert_allclose(part, factor, rtol=1e-5)
  assert found["query[4].inverse_rms"].shape == (2, 12, 4)
  assert found["key[4].inverse_rms"].shape == (2, 12, 2)
  x = expected[Site("resid_post", 7)]
  factor = 1 / np.sqrt((x**2).mean(axis=-1) + 1e-6)
  np.testing.assert_allclose(
    found["final_norm.inverse_rms"][0], factor, rtol=1e-5
  )


def test_only_what_is_asked_for_is_opened():
  model = abstract_gemma(tiny_config(num_layers=2), scan=False)
  assert open_norms(model, {"attn_in", "resid_post.latents"}) is model
  opened = open_norms(model, {"mlp_in.inverse_rms"})
  assert count(opened, OpenNorm) == 2
  twice = open_norms(opened, {"mlp_in.inverse_rms"})
  assert count(twice, OpenNorm) == 2
  assert (
    count(open_norms(model, {f"{n}.inverse_rms" for n in NORMED}), OpenNorm)
    == 13
  )


@pytest.mark.parametrize("scan", [True, False])
def test_an_opened_model_gives_its_weights_back(double, scan):
  model = double.models["scanned" if scan else "unrolled"]
  found = gemma_to_tensors(tap(model, PARTS))
  assert set(found) == set(double.tensors)
  for name in ("layer_4/attn/_query_norm/scale", "final_norm/scale"):
    np.testing.assert_array_equal(found[name], double.tensors[name])
  assert count(model, RMSNorm) > 0
