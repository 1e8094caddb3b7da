"""The stack: scanned equals unrolled, runs split, no layer past the stop."""

import jax
import jax.numpy as jnp
import numpy as np
from penzai import pz
import pytest

from gemma_scope.activations.run import forward
from gemma_scope.model import gemma
from gemma_scope.model.block import block_arrays
from gemma_scope.model.build import abstract_gemma, random_tensors
from gemma_scope.model.config import preset
from gemma_scope.model.convert import tensors_to_gemma
from gemma_scope.sites import Site, resolve
from gemma_scope.surgery import edit, offset, stop_after, tap
from gemma_scope.testing import oracle, programs
from gemma_scope.testing.tiny import tiny_config

LAYERS = 13  # two periods and a layer
TOKENS = np.random.default_rng(0).integers(4, 512, (2, 12)).astype(np.int32)
ONES = np.ones_like(TOKENS)
AXES = ("data", "model")
STREAM = ("batch", "seq", "embedding")


@pytest.fixture(scope="module")
def config():
  return tiny_config(num_layers=LAYERS)


@pytest.fixture(scope="module")
def tensors(config):
  return random_tensors(config, 0)


@pytest.fixture(scope="module", params=["scanned", "unrolled"])
def model(request, config, tensors):
  return tensors_to_gemma(tensors, config, scan=request.param == "scanned")


@pytest.fixture(scope="module")
def expected(config, tensors):
  return [oracle.oracle_forward(tensors, config, row) for row in TOKENS]


def run(model):
  return forward(model, TOKENS, ONES, np.arange(12), "logits")


def traced(model, tokens=64):
  """The operations of one pass over shapes; returns what taps recorded."""
  ids = jax.ShapeDtypeStruct((1, tokens), jnp.int32)
  return programs.operations(
    lambda m, i, s: gemma.run(m, i, s)[1], model, ids, ids
  )


def test_every_site_is_the_oracles(model, expected):
  values = run(tap(model, oracle.every_site(LAYERS)))
  assert set(values) == set(oracle.every_site(LAYERS))
  for row in range(2):
    errors = oracle.relative_errors(values, expected[row], row)
    assert max(errors.values()) < 1e-5, errors


def test_only_what_was_asked_for_is_recorded(model, expected):
  sites = resolve(["z[2]", "pattern[11]", "resid_post[7,12]"], LAYERS)
  values = run(tap(model, sites))
  assert set(values) == set(sites)
  errors = oracle.relative_errors(values, expected[1], row=1)
  assert max(errors.values()) < 1e-5


@pytest.mark.parametrize(
  ("sites", "scans"),
  [
    ([], 1),
    (["resid_post[:]"], 1),
    (["resid_post[3::6]"], 1),
    (["z[8]"], 3),  # the period of layer 8 alone
    (["z[8]", "key[11]"], 3),
    (["z[0]", "resid_pre[23]"], 3),
    (["z[0]", "z[6]", "z[18]"], 3),
    (["z[0]", "mlp_in[12]"], 4),
    (["z[24]", "z[25]", "logits"], 1),  # behind the whole periods
  ],
)
def test_a_tap_cuts_its_period_out_of_the_scan(sites, scans):
  """26 layers are four periods and two layers."""
  model = abstract_gemma(tiny_config(num_layers=26))
  found = traced(tap(model, resolve(sites, 26)))
  assert programs.count(found, "scan") == scans


def test_the_program_does_not_grow_with_depth():
  sizes = {}
  for size, rest in (("4b", 4), ("27b", 2)):
    found = traced(tap(abstract_gemma(preset(size)), ()))
    sizes[size] = len(found) / (6 + rest)
  assert sizes["27b"] == pytest.approx(sizes["4b"], rel=0.1)


@pytest.mark.parametrize("scan", [True, False])
@pytest.mark.parametrize("last", [0, 4, 5, 6, 11, 12])
def test_no_layer_past_the_last_site_is_run(last, scan):
  model = abstract_gemma(tiny_config(num_layers=LAYERS), scan=scan)
  site = Site("resid_post", last)
  found = traced(stop_after(tap(model, [site]), [site]))
  # Seven products a layer: q, kv, scores, z, output, gate and up, down.
  assert programs.count(found, "dot_general") == 7 * (last + 1)


def test_weights_past_the_stop_are_not_touched(config, tensors):
  poisoned = {
    name: np.full_like(value, np.nan)
    if name.startswith(tuple(f"layer_{i}/" for i in range(8, LAYERS)))
    else value
    for name, value in tensors.items()
  }
  site = Site("resid_post", 7)
  model = tap(tensors_to_gemma(poisoned, config), [site])
  (found,) = forward(
    stop_after(model, [site]), TOKENS, ONES, TOKENS[0]
  ).values()
  assert np.isfinite(found.unwrap(*STREAM)).all()
  residual, _ = jax.jit(gemma.run)(model, TOKENS, ONES)
  assert np.isnan(residual.unwrap(*STREAM)).all()


def test_a_block_can_be_cut_out(model, tensors):
  assert model.stack.num_layers == LAYERS
  for layer in (0, 7, 11, 12):
    arrays = block_arrays(model.stack.block(layer))
    value = arrays["mlp/linear"].unwrap("neurons", "embedding")
    np.testing.assert_array_equal(value, tensors[f"layer_{layer}/mlp/linear"])
    scale = arrays["post_ffw_norm/scale"].unwrap("embedding")
    name = f"layer_{layer}/post_ffw_norm/scale"
    np.testing.assert_array_equal(scale, tensors[name])


def test_every_layer_gets_its_own_inputs(model, config, tensors):
  """Also where an edit acts on some layers of a place, inputs name more."""
  edited = resolve(["mlp_write[:]", "attn_proj[1,8]"], LAYERS)
  rng = np.random.default_rng(1)
  deltas = {site: rng.normal(0, 0.3, (12, 32)) for site in edited}
  inputs = {
    site: pz.nx.wrap(jnp.asarray(delta[None], jnp.float32), *STREAM)
    for site, delta in deltas.items()
  }
  last = Site("resid_post", LAYERS - 1)
  changed = tap(offset(model, edited), [last])
  _, taps = jax.jit(gemma.run)(changed, TOKENS[:1], ONES[:1], inputs)
  edits = {s: lambda v, d=delta: v + d for s, delta in deltas.items()}
  expected = oracle.oracle_forward(tensors, config, TOKENS[0], edits)
  assert oracle.relative_errors(taps, expected)["resid_post"] < 1e-5


def turned(value):
  """The value with its axes in another order."""
  return value.order_as(*reversed(value.named_axes))


@pytest.mark.parametrize("site", [Site("embed"), Site("resid_post", 5)])
def test_the_residual_stream_may_be_turned(model, expected, site):
  last = Site("resid_post", LAYERS - 1)
  values = run(tap(edit(model, site, turned), [last]))
  assert oracle.relative_errors(values, expected[0])["resid_post"] < 1e-5


def test_a_derivative_on_a_mesh_keeps_no_copy_of_the_weights():
  mesh = jax.sharding.Mesh(np.array(jax.devices()[:1])[:, None], AXES)
  model = abstract_gemma(tiny_config(num_layers=24), mesh=mesh)
  ids = jnp.ones((1, 2), jnp.int32)

  def total(embedded, model):
    placement = gemma.place(model, ids, ids)
    return gemma.run_layers(model, embedded, placement)[0].data_array.sum()

  embedded = pz.nx.wrap(jnp.ones((1, 2, 32)), *STREAM)
  lowered = jax.jit(jax.grad(total)).lower(embedded, model)
  weights = sum(leaf.size * 4 for leaf in jax.tree.leaves(model.stack))
  stats = lowered.compile().memory_analysis()
  assert stats.temp_size_in_bytes < weights / 2
