"""Dropped gradients against float64 runs with a layer's writes held."""

import jax.numpy as jnp
import numpy as np
import pytest

from gemma_scope.attribution import logit_difference
from gemma_scope.attribution.evaluate import ask
from gemma_scope.attribution.patching.grad_drop import gated, mean_size
from gemma_scope.attribution.patching.slopes import slopes
from gemma_scope.sites import Site, resolve
from tests.attribution.conftest import STEP
from tests.attribution.patching.patch_checks import TARGET

SITES = resolve(["resid_pre[0]", "resid_pre[1]", "mlp_act[0]", "z[1]"], 2)


@pytest.fixture(scope="module")
def found(double):
  """The target and slopes with nothing, layer 0 and layer 1 dropped."""
  _, rows, target = ask(double.lm, double.ids, logit_difference(7, 9))
  many = rows.take(jnp.zeros(3, int))
  drops = np.asarray([[False, True, False], [False, False, True]])
  model = gated(double.lm.model, jnp.asarray(drops))
  value, _, slope = slopes(model, many, target, SITES)
  return value, slope


def constant(value):
  return lambda _: value


def held_slope(double, site, direction, layer):
  """The slope of a site while what a layer writes is a constant."""
  writes = [Site(name, layer) for name in ("attn_write", "mlp_write")]
  held = {write: constant(double.site(write)) for write in writes}

  def moved(t):
    edits = held | {site: lambda x: x + t * direction}
    return double.value(TARGET, edits)

  return (moved(STEP) - moved(-STEP)) / (2 * STEP)


def test_values_stay_the_same(double, found):
  value, _ = found
  expected = double.value(TARGET)
  np.testing.assert_allclose(value, [expected] * 3, rtol=1e-4)


@pytest.mark.parametrize("site", SITES, ids=str)
def test_slopes_go_around_the_dropped_layer(double, found, site):
  _, slope = found
  direction = np.random.default_rng(1).normal(size=double.site(site).shape)
  ours = np.asarray(slope[site].unwrap(*site.info.axes), np.float64)
  for layer in (0, 1):
    expected = held_slope(double, site, direction, layer)
    np.testing.assert_allclose(
      (ours[1 + layer] * direction).sum(), expected, rtol=2e-3, atol=1e-6
    )


def test_a_node_inside_a_layer_has_one_term_less():
  sizes = np.asarray([[[-1.0]], [[2.0]], [[-4.0]], [[64.0]]])  # drop 0, 1, 2
  dropped = np.asarray([0, 1, 2, -2])
  stream = mean_size(sizes, dropped, Site("resid_pre", 1), 3)
  np.testing.assert_allclose(stream, [[7 / 3]])
  inside = mean_size(sizes, dropped, Site("z", 1), 3)
  np.testing.assert_allclose(inside, [[5 / 2]])
