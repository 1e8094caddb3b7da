"""Taps change nothing; offsets add, and carry the gradient of their site."""

import jax
import jax.numpy as jnp
import numpy as np
from penzai import pz
import pytest

import gemma_scope as gs
from gemma_scope.errors import SiteError
from gemma_scope.model import gemma
from gemma_scope.model.build import abstract_gemma, random_tensors
from gemma_scope.model.convert import tensors_to_gemma
from gemma_scope.model.placement import placement_of, places_of
from gemma_scope.sites import SITES, Site
from gemma_scope.surgery import offset, replace, tap
from gemma_scope.testing import oracle, programs
from gemma_scope.testing.tiny import tiny_config, tiny_gemma

LAYERS = 8
SEQ = 11  # past the window of 8
TOKENS = np.random.default_rng(0).integers(2, 512, (1, SEQ)).astype(np.int32)
DIRECTION = np.random.default_rng(1).normal(size=512)
ARITHMETIC = {"dot_general", "add", "mul", "div", "exp", "tanh", "rsqrt"}
# Every site once: in a local and a global layer of the scan, and behind it.
_INSIDE = [name for name, info in SITES.items() if info.per_layer]
SITES_ONCE = (
  *[Site(name, (2, 5, 7)[i % 3]) for i, name in enumerate(_INSIDE)],
  *[Site(name) for name in ("embed", "final_norm", "logits")],
)


@pytest.fixture(scope="module")
def config():
  return tiny_config(num_layers=LAYERS)


@pytest.fixture(scope="module")
def tensors(config):
  return random_tensors(config, 0)


@pytest.fixture(scope="module")
def model(config, tensors):
  return tensors_to_gemma(tensors, config)


def run(model, inputs=None):
  """All logits, and what taps recorded, with inputs at any site."""
  ones = jnp.ones_like(TOKENS)
  placement = placement_of(places_of(ones), model.config)
  residual, taps = gemma.run(model, TOKENS, ones, inputs)
  normed, seen = gemma.apply_final_norm(model, residual, placement, inputs)
  logits, last = gemma.unembed(model, normed, placement, inputs)
  return logits, taps | seen | last


def data(value, site):
  return np.asarray(value.unwrap(*site.info.axes))


def zeros_like(shapes):
  return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)


def zeros(model):
  """An offset of zero for each of `SITES_ONCE`."""
  return zeros_like(jax.eval_shape(run, tap(model, SITES_ONCE))[1])


def logits(model, inputs=None):
  return data(jax.jit(run)(model, inputs)[0], Site("logits"))


@pytest.fixture(scope="module")
def plain(model):
  return logits(model)


@pytest.fixture(scope="module")
def shallow():
  """A model of one layer, to be run operation by operation."""
  return tiny_gemma(tiny_config(num_layers=1))


@pytest.fixture(scope="module")
def eager(shallow):
  with jax.disable_jit():
    return data(run(shallow)[0], Site("logits"))


def test_a_tap_changes_no_bit(shallow, eager):
  """Compiled, the same operations are fused and rounded in other ways."""
  sites = oracle.every_site(1)
  with jax.disable_jit():
    found, taps = run(tap(shallow, sites))
  assert set(taps) == set(sites)
  np.testing.assert_array_equal(data(found, Site("logits")), eager)


def test_an_offset_of_zero_changes_no_bit(shallow, eager):
  sites = oracle.every_site(1)
  _, shapes = jax.eval_shape(run, tap(shallow, sites))
  with jax.disable_jit():
    found, _ = run(offset(shallow, sites), zeros_like(shapes))
  np.testing.assert_array_equal(data(found, Site("logits")), eager)


@pytest.mark.parametrize("depth", [6, 8])
def test_a_tap_adds_no_arithmetic(depth):
  """The dense pattern aside, which is another way to compute."""
  model = abstract_gemma(tiny_config(num_layers=depth))
  sites = [s for s in oracle.every_site(depth) if s.name != "pattern"]

  def traced(model):
    found = programs.operations(run, model)
    return [(op.name, op.times) for op in found if op.name in ARITHMETIC]

  assert traced(tap(model, sites)) == traced(model)
  assert {name for name, _ in traced(model)} == ARITHMETIC


def test_taps_and_offsets_of_zero_change_nothing_when_compiled(model, plain):
  tapped = logits(tap(model, oracle.every_site(LAYERS)))
  np.testing.assert_allclose(tapped, plain, rtol=1e-5, atol=1e-5)
  changed = logits(offset(model, SITES_ONCE), zeros(model))
  np.testing.assert_allclose(changed, plain, rtol=1e-5, atol=1e-5)


def test_what_is_recorded_is_what_passes_on(model):
  site = Site("resid_post", 7)
  sites = [Site("embed"), Site("resid_pre", 0), Site("resid_mid", 7), site]
  sites += [Site("mlp_write", 7), Site("logits")]
  found, taps = jax.jit(run)(tap(model, sites))
  assert set(taps) == set(sites)
  np.testing.assert_array_equal(
    data(taps[Site("embed")], site), data(taps[Site("resid_pre", 0)], site)
  )
  total = data(taps[sites[2]], site) + data(taps[Site("mlp_write", 7)], site)
  np.testing.assert_allclose(total, data(taps[site], site), atol=1e-5)
  np.testing.assert_array_equal(
    data(taps[Site("logits")], Site("logits")), data(found, Site("logits"))
  )


def test_an_offset_is_added_where_it_says(model):
  site, after = Site("attn_proj", 6), Site("resid_post", 6)
  changed = tap(offset(model, [site]), [site, after])
  inputs = {site: zeros(model)[Site("embed")] + 0.5}
  _, taps = jax.jit(run)(changed, inputs)
  _, before = jax.jit(run)(tap(model, [site, after]))
  difference = data(taps[site], site) - data(before[site], site)
  np.testing.assert_allclose(difference, 0.5, atol=1e-6)
  assert not np.allclose(data(taps[after], after), data(before[after], after))


@pytest.fixture(scope="module")
def gradients(model):
  changed = offset(model, SITES_ONCE)

  def score(inputs):
    logits = run(changed, inputs)[0].unwrap(*SITES["logits"].axes)
    return logits[0, -1] @ jnp.asarray(DIRECTION, jnp.float32)

  return jax.jit(jax.grad(score))(zeros(model))


@pytest.mark.parametrize("site", SITES_ONCE, ids=str)
def test_the_gradient_of_an_offset_is_the_sites(
  gradients, config, tensors, site
):
  """Against central differences of the float64 oracle."""
  gradient = data(gradients[site], site)[0]
  rng = np.random.default_rng(list(SITES).index(site.name))
  step = rng.normal(size=gradient.shape)
  step /= np.linalg.norm(step)

  def score(amount):
    edits = {site: lambda value: value + amount * step}
    values = oracle.oracle_forward(tensors, config, TOKENS[0], edits)
    return values[Site("logits")][-1] @ DIRECTION

  slope = (score(1e-4) - score(-1e-4)) / 2e-4
  scale = float(np.linalg.norm(gradient)) / gradient.size**0.5
  found = float(np.vdot(gradient, step))
  assert found == pytest.approx(slope, abs=1e-4 * scale)


def test_taps_and_offsets_work_under_vmap(model):
  site, after = Site("mlp_write", 3), Site("resid_post", 7)
  changed = tap(offset(model, [site]), [after])
  amounts = jnp.asarray([0.0, 0.5, -1.0])
  zero = zeros(model)[Site("embed")]

  @jax.vmap
  def values(amount):
    return run(changed, {site: zero + amount})[1][after]

  found = jax.jit(values)(amounts)
  assert isinstance(found, pz.nx.NamedArray)
  rows = found.tag("steps").unwrap("steps", *after.info.axes)
  for i, amount in enumerate(amounts):
    one = jax.jit(run)(changed, {site: zero + amount})[1][after]
    np.testing.assert_allclose(rows[i], data(one, after), rtol=1e-4, atol=1e-4)


def test_a_replacement_is_the_value_whatever_comes_in(tiny_lm):
  site = Site("resid_post", 1)
  clean = gs.capture(tiny_lm, "Mary and John", ["resid_post[1]", "z[3]"])
  other = gs.capture(tiny_lm, "John and Mary", ["resid_post[1]", "z[3]"])
  assert clean.tokens.ids.shape == other.tokens.ids.shape
  changed = tap(replace(tiny_lm.model, [site]), ["z[3]"])
  _, taps = gemma.run(
    changed,
    clean.tokens.ids,
    clean.tokens.segment_ids,
    {site: other["resid_post[1]"]},
  )
  found = np.asarray(taps[Site("z", 3)].data_array)
  expected = np.asarray(other["z[3]"].data_array)
  np.testing.assert_allclose(found, expected, atol=1e-5)
  assert np.abs(found - np.asarray(clean["z[3]"].data_array)).max() > 1e-2


def test_an_edit_without_its_array_is_refused(tiny_lm):
  with pytest.raises(SiteError, match="was not given its array"):
    gemma.run(
      replace(tiny_lm.model, ["z[3]"]),
      np.asarray([[2, 5]]),
      np.asarray([[1, 1]]),
    )
