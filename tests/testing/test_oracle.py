"""The oracle itself, against sums done another way."""

import dataclasses
import math

import numpy as np
from penzai import pz
import pytest

from gemma_scope.model.build import random_tensors
from gemma_scope.sites import SITES, Site
from gemma_scope.testing import oracle
from gemma_scope.testing.tiny import tiny_config

TOKENS = np.array([2, 17, 400, 17, 33, 250, 8, 8, 91, 300, 5, 77])


@pytest.fixture(scope="module")
def config():
  return dataclasses.replace(tiny_config(num_layers=7), window=4)


@pytest.fixture(scope="module")
def tensors(config):
  return random_tensors(config, 5)


@pytest.fixture(scope="module")
def values(config, tensors):
  return oracle.oracle_forward(tensors, config, TOKENS)


def test_it_returns_every_site_with_its_shape(config, values):
  assert tuple(sorted(values)) == oracle.every_site(config.num_layers)
  sizes = {"seq": 12, "kv_seq": 12, "embedding": 32, "heads": 4, "kv_heads": 2}
  sizes |= {"projection": 16, "neurons": 48, "vocabulary": 512}
  for site, value in values.items():
    kept = [axis for axis in SITES[site.name].axes if axis != "batch"]
    assert value.shape == tuple(sizes[axis] for axis in kept)
    assert value.dtype == np.float64


def test_the_residual_stream_is_the_sum_of_what_is_written(values):
  total = values[Site("embed")]
  for layer in range(7):
    total = total + values[Site("attn_write", layer)]
    total = total + values[Site("mlp_write", layer)]
    np.testing.assert_allclose(total, values[Site("resid_post", layer)])


def test_patterns_are_causal_windows_that_sum_to_one(values):
  for layer in range(7):
    pattern = values[Site("pattern", layer)]
    np.testing.assert_allclose(pattern.sum(-1), 1)
    behind = np.subtract.outer(np.arange(12), np.arange(12))
    reach = 12 if layer == 5 else 4
    seen = (behind >= 0) & (behind < reach)
    assert (pattern[:, seen] > 0).all()
    assert (pattern[:, ~seen] == 0).all()


def test_later_tokens_change_nothing_before_them(config, tensors, values):
  changed = TOKENS.copy()
  changed[8:] = 300
  other = oracle.oracle_forward(tensors, config, changed)
  last = Site("resid_post", 6)
  np.testing.assert_allclose(other[last][:8], values[last][:8])
  assert not np.allclose(other[last][8:], values[last][8:])


def test_heads_share_their_key_value_head(config, tensors):
  one = oracle.oracle_forward(tensors, config, TOKENS)

  def silence(value):
    return value * np.array([1, 0])[:, None]

  edits = {Site("value", 3): silence, Site("key", 3): silence}
  other = oracle.oracle_forward(tensors, config, TOKENS, edits)
  z, before = other[Site("z", 3)], one[Site("z", 3)]
  np.testing.assert_array_equal(z[:, :2], before[:, :2])
  assert (z[:, 2:] == 0).all()
  pattern, before = other[Site("pattern", 3)], one[Site("pattern", 3)]
  np.testing.assert_array_equal(pattern[:2], before[:2])
  np.testing.assert_allclose(pattern[2:, 8, 5:9], 0.25)  # of equal scores


def test_rope_turns_pairs_like_complex_numbers():
  x = np.random.default_rng(0).normal(size=(9, 6))
  turned = oracle.rope(x, base=100.0, factor=4.0)
  pairs = x[:, :3] + 1j * x[:, 3:]
  steps = np.exp(1j * np.array([1, 100 ** (-1 / 3), 100 ** (-2 / 3)]) / 4)
  expected = pairs * steps ** np.arange(9)[:, None]
  np.testing.assert_allclose(turned[:, :3], expected.real)
  np.testing.assert_allclose(turned[:, 3:], expected.imag)


def test_gelu_is_close_to_x_times_the_normal_distribution():
  x = np.linspace(-4, 4, 81)
  phi = [0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x]
  np.testing.assert_allclose(oracle.gelu(x), x * phi, atol=5e-4)


def test_errors_are_found_in_their_row_and_columns(values):
  site = Site("resid_post", 2)
  truth = values[site]
  padded = np.zeros((2, 20, 32))
  padded[1, 3:15] = truth
  padded[1, 5] *= 1.25
  found = {site: pz.nx.wrap(padded, "batch", "seq", "embedding")}
  errors = oracle.relative_errors(found, values, row=1, first=3)
  assert errors == {"resid_post": pytest.approx(0.25)}
