"""Recomputed softmaxes against loops over queries, heads and keys."""

import jax.numpy as jnp
import numpy as np
import pytest

from gemma_scope.attribution.patching.query_key import (
  Heads,
  key_effects,
  query_effects,
)
from gemma_scope.model.placement import places_of
from gemma_scope.testing.oracle import head_pattern

SEQ, COUNT, KV_COUNT, WIDTH, SCALE = 7, 4, 2, 8, 0.5


@pytest.fixture(scope="module")
def arrays():
  rng = np.random.default_rng(0)
  sizes = {"query": COUNT, "key": KV_COUNT, "value": KV_COUNT, "slope": COUNT}
  sizes |= {"query'": COUNT, "key'": KV_COUNT}
  return {
    n: rounded(rng.normal(size=(SEQ, k, WIDTH))) for n, k in sizes.items()
  }


def rounded(array):
  """Numbers that float32 holds exactly, in float64."""
  return array.astype(np.float32).astype(np.float64)


def heads_of(arrays):
  names = ("query", "key", "value", "slope")
  parts = [jnp.asarray(arrays[n], jnp.float32)[None] for n in names]
  return Heads(*parts, places_of(jnp.ones((1, SEQ), jnp.int32)))


def effect_of(arrays, query, key, window):
  """What z changes by, times the slope of z, head by head."""
  total = np.zeros(COUNT)
  for n in range(COUNT):
    k = n // (COUNT // KV_COUNT)
    before = head_pattern(
      arrays["query"][:, n] * SCALE, arrays["key"][:, k], window
    )
    after = head_pattern(query[:, n] * SCALE, key[:, k], window)
    change = (after - before) @ arrays["value"][:, k]
    total[n] = (change * arrays["slope"][:, n]).sum()
  return total


def dense(arrays, window):
  """Every query and every key patched by itself, all softmaxes anew."""
  queries, keys = np.zeros((SEQ, COUNT)), np.zeros((SEQ, KV_COUNT))
  for i in range(SEQ):
    query, key = arrays["query"].copy(), arrays["key"].copy()
    query[i], key[i] = arrays["query'"][i], arrays["key'"][i]
    queries[i] = effect_of(arrays, query, arrays["key"], window)
    by_head = effect_of(arrays, arrays["query"], key, window)
    keys[i] = by_head.reshape(KV_COUNT, -1).sum(axis=1)
  return queries, keys


@pytest.mark.parametrize("window", [None, 3])
def test_effects_are_those_of_every_softmax_anew(arrays, window):
  queries, keys = dense(arrays, window)
  heads = heads_of(arrays)
  found = query_effects(heads, as_jax(arrays["query'"]), SCALE, window)
  np.testing.assert_allclose(found[0], queries, rtol=1e-3, atol=1e-5)
  found = key_effects(heads, as_jax(arrays["key'"]), SCALE, window)
  np.testing.assert_allclose(found[0], keys, rtol=1e-3, atol=1e-5)


def test_saturated_softmaxes_are_seen_through(arrays):
  # One key takes all but 1e-20, so that the gradient is nothing at all.
  sharp = arrays | {"query": 12 * arrays["query"], "key": 3 * arrays["key"]}
  sharp["query'"], sharp["key'"] = 12 * arrays["query'"], 3 * arrays["key'"]
  queries, keys = dense(sharp, None)
  heads = heads_of(sharp)
  found = query_effects(heads, as_jax(sharp["query'"]), SCALE, None)
  np.testing.assert_allclose(found[0], queries, rtol=1e-3, atol=1e-4)
  found = key_effects(heads, as_jax(sharp["key'"]), SCALE, None)
  np.testing.assert_allclose(found[0], keys, rtol=1e-3, atol=1e-4)


def test_small_changes_keep_their_digits(arrays):
  near = rounded(arrays["key"] + 1e-4 * (arrays["key'"] - arrays["key"]))
  _, keys = dense(arrays | {"key'": near}, None)
  found = key_effects(heads_of(arrays), as_jax(near), SCALE, None)
  np.testing.assert_allclose(found[0], keys, rtol=2e-3, atol=1e-9)


def as_jax(array):
  return jnp.asarray(array, jnp.float32)[None]
