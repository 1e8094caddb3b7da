"""Attention as a layer: its sites, its past, edits however they are written.

That its numbers are right is seen in test_gemma.py.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from penzai import pz
import pytest

from gemma_scope.activations.run import forward
from gemma_scope.model.attention import after
from gemma_scope.model.build import random_tensors
from gemma_scope.model.context import Past
from gemma_scope.model.convert import tensors_to_gemma
from gemma_scope.model.placement import places_of
from gemma_scope.sites import Site
from gemma_scope.surgery import edit, tap
from gemma_scope.testing import oracle
from gemma_scope.testing.tiny import tiny_config

LAYERS = 3
# As many tokens as heads, and as a head is wide: a swap of axes would pass.
TOKENS = np.array([2, 17, 400, 33], np.int32)


def keep_last_token(value):
  """Zeroes the other tokens, in a way that reorders the axes."""
  kept = pz.nx.nmap(lambda row: row.at[:-1].set(0))(value.untag("seq"))
  return kept.tag("seq")


@pytest.fixture(scope="module")
def config():
  config = tiny_config(num_layers=LAYERS)
  return dataclasses.replace(config, head_dim=4, num_kv_heads=4)


@pytest.fixture(scope="module")
def tensors(config):
  return random_tensors(config, 0)


@pytest.mark.parametrize(
  "name", ["query", "key", "value", "pattern", "z", "attn_proj"]
)
def test_edits_may_return_axes_in_any_order(config, tensors, name):
  site, last = Site(name, 1), Site("resid_post", 2)
  model = tensors_to_gemma(tensors, config)
  edited = tap(edit(model, site, keep_last_token), [last])
  ones = np.ones((1, len(TOKENS)), np.int32)
  found = forward(edited, TOKENS[None], ones, np.arange(len(TOKENS)))
  axis = [a for a in site.info.axes if a != "batch"].index("seq")

  def keep_last(value):
    mask = np.arange(value.shape[axis]) == value.shape[axis] - 1
    shape = [1] * value.ndim
    shape[axis] = -1
    return value * mask.reshape(shape)

  expected = oracle.oracle_forward(tensors, config, TOKENS, {site: keep_last})
  errors = oracle.relative_errors(found, expected)
  assert errors["resid_post"] < 1e-5


def test_the_past_stands_in_front():
  old, new = places_of(jnp.ones((1, 2), int)), places_of(jnp.ones((1, 1), int))
  past = Past(jnp.zeros((1, 2, 1, 4)), jnp.zeros((1, 2, 1, 4)), old)
  ones = jnp.ones((1, 1, 1, 4))
  keys, values, places = after(past, ones, 2 * ones, new)
  assert keys[0, :, 0, 0].tolist() == [0, 0, 1]
  assert values[0, :, 0, 0].tolist() == [0, 0, 2]
  assert places.positions.tolist() == [[0, 1, 0]]
  assert jax.tree.leaves(places)[0].shape == (1, 3)
