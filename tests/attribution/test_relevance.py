"""Relevance at a model's sites: tiny Gemma always, the real one where it is."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gemma_scope import testing
from gemma_scope.activations.tokens import to_tokens
from gemma_scope.attribution import lrp
from gemma_scope.attribution.evaluate import Rows, evaluate, to_rows
from gemma_scope.attribution.objectives import ResolvedTarget
from gemma_scope.attribution.relevance import relevance
from gemma_scope.sites import Site, resolve
from gemma_scope.testing.tiny import tiny_config
from tests.attribution.checks import assert_same_bits
from tests.goldens import sketch

GOLDEN = pathlib.Path(__file__).parent.parent / "goldens" / "lxt.npz"
SMALL = lrp.LRP_EPSILON.replace("SMALL", {"weights": lrp.Epsilon(1e-9)})
TARGET = ResolvedTarget(jnp.array([7, 30]), jnp.array([1.0, -1.0]))
names = functools.partial(
  pytest.mark.parametrize, "rules", ids=lambda table: table.name
)


@pytest.fixture(scope="module")
def seven():
  """Seven layers, a scanned period and one more, and two prompts."""
  lm = testing.tiny_lm(tiny_config(num_layers=7, window=4))
  texts = [" the capital of France is", " Mary and John gave a drink to"]
  return lm, to_rows(to_tokens(lm, texts), -1)


def summed(values):
  """Site -> [batch] relevance summed over everything else."""
  return {
    site: np.asarray(v.unwrap(*site.info.axes), np.float64).sum(
      axis=tuple(range(1, len(site.info.axes)))
    )
    for site, v in values.items()
  }


@names([lrp.CP_LRP, SMALL, lrp.LRP_GAMMA])
def test_every_layers_residual_sums_to_the_target(seven, rules):
  lm, rows = seven
  sites = resolve(["embed", "resid_mid[3]", "resid_post[:]"], 7)
  value, values = relevance(lm.model, rows, TARGET, sites, rules)
  assert (np.abs(value) > 1e-2).all()
  for site, total in summed(values).items():
    np.testing.assert_allclose(total, value, rtol=2e-4, err_msg=str(site))


@names([lrp.CP_LRP, lrp.ATTN_LRP])
def test_a_scanned_stack_and_an_unrolled_one_agree(seven, rules):
  lm, rows = seven
  flat = testing.tiny_gemma(lm.config, scan=False)
  sites = resolve(["embed", "query[2]", "z[5]", "mlp_act[6]"], 7)
  results = [relevance(m, rows, TARGET, sites, rules) for m in (lm.model, flat)]
  np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-5)
  for site in sites:
    a, b = (np.asarray(r[1][site].unwrap(*site.info.axes)) for r in results)
    scale = np.abs(b).max()
    assert scale > 1e-4
    np.testing.assert_allclose(a / scale, b / scale, atol=1e-4)


@names([lrp.CP_LRP, lrp.ATTN_LRP, lrp.LRP_GAMMA])
def test_the_target_is_the_forward_pass_to_the_last_bit(seven, rules):
  lm, rows = seven
  value, _ = relevance(lm.model, rows, TARGET, resolve(["z[1]"], 7), rules)
  forward = jax.jit(lambda m, r: evaluate(m, r, TARGET, {})[0])
  assert_same_bits(value, forward(lm.model, rows))


@names([lrp.ATTN_LRP, lrp.LRP_GAMMA])
def test_relevance_does_not_depend_on_what_else_is_asked(double, rules):
  rows = to_rows(to_tokens(double.lm, double.ids), -1)
  # A value alone would see the pattern as a weight, a query the values.
  asked = ("value[1]", "query[1]", "mlp_act[0]")
  together = relevance(
    double.lm.model, rows, TARGET, resolve(("embed", *asked), 2), rules
  )[1]
  for site in resolve(asked, 2):
    alone = relevance(double.lm.model, rows, TARGET, (site,), rules)[1]
    assert list(alone) == [site]
    found, expected = (
      np.asarray(v[site].unwrap(*site.info.axes)) for v in (alone, together)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_branches_conserve_from_end_to_end(seven):
  lm, rows = seven
  sites = resolve(
    ["z[2]", "attn_proj[2]", "attn_write[2]", "mlp_act[4]", "mlp_write[4]"], 7
  )
  found = summed(relevance(lm.model, rows, TARGET, sites, lrp.CP_LRP)[1])
  z, _, write, act, mlp = (found[site] for site in sites)
  np.testing.assert_allclose(z, write, rtol=1e-3, atol=1e-5)
  np.testing.assert_allclose(found[sites[1]], write, rtol=1e-3, atol=1e-5)
  np.testing.assert_allclose(act, mlp, rtol=1e-3, atol=1e-5)


def test_a_pattern_has_half_its_products_relevance_or_none(double):
  rows = to_rows(to_tokens(double.lm, double.ids), -1)
  sites = resolve(["value[1]", "pattern[1]", "z[1]"], 2)
  found = summed(
    relevance(double.lm.model, rows, TARGET, sites, lrp.ATTN_LRP)[1]
  )
  value, pattern, z = (found[site] for site in sites)
  np.testing.assert_allclose(value, z / 2, rtol=1e-4)
  np.testing.assert_allclose(pattern, z / 2, rtol=1e-4)
  with pytest.raises(
    lrp.RuleError, match=r"constant.*\n.*exp at .*attention_k"
  ):
    relevance(double.lm.model, rows, TARGET, sites, lrp.CP_LRP)


def golden_rows():
  """Key -> (rows, target, stored values) of every prompt, at one shape."""
  with np.load(GOLDEN) as stored:
    keys = [k.removesuffix("/tokens") for k in stored if k.endswith("/tokens")]
    found = {}
    for key in keys:
      tokens = stored[f"{key}/tokens"]
      ids = np.zeros((1, 65), np.int32)
      ids[0, : len(tokens)] = tokens
      kept = (np.arange(65) < len(tokens))[None].astype(np.int32)
      rows = Rows(ids, kept, np.array([len(tokens) - 1], np.int32))
      target = ResolvedTarget(
        np.array([stored[f"{key}/target"]], np.int32), np.ones(1, np.float32)
      )
      names = ("value", "relevance", "sketch", "noise")
      expected = {name: stored[f"{key}/{name}"] for name in names}
      found[key] = rows, target, expected
  return found


def test_goldens_hold_prompts_with_and_without_bos():
  rows = golden_rows()
  starts = [key.rpartition("/")[2] for key in rows]
  assert starts.count("bos") == starts.count("bare") >= 10
  for key, (given, _, _) in rows.items():
    assert (given.ids[0, 0] == 2) == key.endswith("bos")


@pytest.mark.real
@names([lrp.CP_LRP, SMALL])
def test_the_real_model_conserves_at_every_layer(real_lm, rules):
  forward = jax.jit(lambda m, r, t: evaluate(m, r, t, {})[0])
  sites = resolve(["embed", "resid_post[:]"], 18)
  prompts = [v for k, v in golden_rows().items() if k.endswith("bos")]
  assert len(prompts) >= 10
  for rows, target, stored in prompts:
    value, values = relevance(real_lm.model, rows, target, sites, rules)
    np.testing.assert_allclose(value, stored["value"], rtol=1e-5)
    assert_same_bits(value, forward(real_lm.model, rows, target))
    for site, total in summed(values).items():
      np.testing.assert_allclose(total, value, rtol=1e-4, err_msg=str(site))


@pytest.mark.real
def test_attn_lrp_is_lxt_on_the_real_model(real_lm):
  site = Site("embed")
  ratios = []
  for key, (rows, target, stored) in golden_rows().items():
    value, values = relevance(
      real_lm.model, rows, target, (site,), lrp.ATTN_LRP
    )
    found = np.asarray(values[site].unwrap(*site.info.axes), np.float64)[0]
    n = len(stored["relevance"])
    assert not found[n:].any()
    tokens, expected = found[:n].sum(axis=-1), stored["relevance"]
    error = np.linalg.norm(tokens - expected) / np.linalg.norm(expected)
    # Where lxt is not sure of itself, rounding decides.
    assert error <= max(1e-4, 10 * stored["noise"]), key
    if stored["noise"] < 1e-5:
      inside = sketch.relative_error(sketch.sketch(found[:n]), stored["sketch"])
      assert np.median(inside) < 1e-4
    ratios.append(float(tokens.sum() / value[0]))
  # It does not conserve, by its softmax rule.
  assert -0.2 < min(ratios) < max(ratios) < 0.5
