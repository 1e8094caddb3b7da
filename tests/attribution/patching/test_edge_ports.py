"""Writers and readers against what the model's own sites hold."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gemma_scope as gs
from gemma_scope.attribution.composites import CP_LRP, GRADIENT
from gemma_scope.attribution.patching.edge_ports import (
  LayerRun,
  attention_readers,
  feedforward_reader,
  head_writes,
  query_or_key,
  values,
)
from gemma_scope.model.block import block_arrays
from gemma_scope.model.placement import placement_of, places_of

STATIC = ("eps", "rules")
READ_HEADS = jax.jit(attention_readers, static_argnames=STATIC)
READ_MLP = jax.jit(feedforward_reader, static_argnames=STATIC)
NAMES = ("query", "key", "value")
SITES = ("resid_pre", "resid_mid", "attn_write", "z", "attn_proj", *NAMES)


@pytest.fixture(scope="module")
def layer(scanned):
  """Arrays, values and angles of the global layer of a scanned model."""
  acts = gs.capture(scanned.lm, scanned.ids, [f"{n}[5]" for n in SITES])
  seen = {n: acts[f"{n}[5]"].unwrap(*acts[f"{n}[5]"].named_axes) for n in SITES}
  places = places_of(jnp.ones((1, len(scanned.ids)), jnp.int32))
  turn = placement_of(places, scanned.config).globally
  return block_arrays(scanned.lm.model.stack.block(5)), seen, turn


def test_heads_write_what_attention_adds(scanned, layer):
  arrays, seen, _ = layer
  eps = scanned.config.norm_eps
  shares = head_writes(arrays, seen["z"], seen["attn_proj"], eps)
  assert shares.shape[0] == 4
  np.testing.assert_allclose(shares.sum(0), seen["attn_write"], atol=1e-5)


def test_heads_read_what_the_sites_hold(scanned, layer):
  arrays, seen, turn = layer
  eps, x = scanned.config.norm_eps, seen["resid_pre"]
  query = arrays["attn/q_einsum/w"].data_array
  key, value = arrays["attn/kv_einsum/w"].data_array.transpose(1, 2, 0, 3)
  for n in range(4):
    found = query_or_key(x, query[:, n], arrays, "query", turn, eps)
    np.testing.assert_allclose(found, seen["query"][:, :, n], atol=1e-5)
  for k in range(2):
    found = query_or_key(x, key[k], arrays, "key", turn, eps)
    np.testing.assert_allclose(found, seen["key"][:, :, k], atol=1e-5)
    found = values(x, value[k], arrays, eps)
    np.testing.assert_allclose(found, seen["value"][:, :, k], atol=1e-5)


def layer_run(layer, seed=0):
  """The layer's streams, with random slopes at its readers."""
  _, seen, turn = layer
  keys = jax.random.split(jax.random.key(seed), 4)
  slopes = [
    jax.random.normal(k, seen[n].shape)
    for k, n in zip(keys, (*NAMES, "resid_mid"))
  ]
  return LayerRun(seen["resid_pre"], seen["resid_mid"], turn, *slopes)


def test_slopes_are_pulled_back_reader_by_reader(scanned, layer):
  arrays, _, turn = layer
  eps, run = scanned.config.norm_eps, layer_run(layer)
  found = READ_HEADS(arrays, run, eps, GRADIENT)
  assert found.shape[0] == 4 + 2 + 2
  key = arrays["attn/kv_einsum/w"].data_array[:, 0, 1]

  @jax.jit
  def read(x):
    value = query_or_key(x, key, arrays, "key", turn, eps)
    return (value * run.key[:, :, 1]).sum()

  way = jax.random.normal(jax.random.key(9), run.resid_pre.shape)
  step = 1e-3
  up, down = (read(run.resid_pre + s * step * way) for s in (1, -1))
  np.testing.assert_allclose(
    (found[5] * way).sum(), (up - down) / (2 * step), rtol=2e-2
  )
  assert READ_MLP(arrays, run, eps, GRADIENT).shape[0] == 1


def test_rules_hold_norm_scales(scanned, layer):
  arrays, _, _ = layer
  eps, run = scanned.config.norm_eps, layer_run(layer)
  held = READ_MLP(arrays, run, eps, CP_LRP)[0]
  gain = 1 + arrays["pre_ffw_norm/scale"].data_array[None, None]
  size = jnp.sqrt((run.resid_mid**2).mean(-1, keepdims=True) + eps)
  np.testing.assert_allclose(held, run.mlp_in * gain / size, rtol=1e-4)
