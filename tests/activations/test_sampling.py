"""Choosing tokens: filters against a slow oracle, and the seed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gemma_scope.activations.sampling import Sampling, choose, keep_nucleus
from gemma_scope.errors import ConfigError

LOGITS = np.random.default_rng(0).normal(0, 2, (3, 40)).astype(np.float32)


def softmax(row):
  e = np.exp(np.asarray(row, np.float64) - np.max(row))
  return e / e.sum()


def allowed(row, how):
  """Token id -> probability, by sorting and counting."""
  row = np.asarray(row, np.float64) / how.temperature
  order = sorted(range(len(row)), key=lambda i: -row[i])
  order = order[: how.top_k]
  if how.top_p is not None:
    probs = softmax(row[order])
    total, kept = 0.0, []
    for token, prob in zip(order, probs):
      if total >= how.top_p:
        break
      kept.append(token)
      total += prob
    order = kept
  return dict(zip(order, softmax(row[order])))


def draw(logits, how, times=4000):
  """[times, batch] independent choices."""
  keys = jax.random.split(jax.random.key(0), times)
  return np.asarray(
    jax.jit(jax.vmap(lambda key: choose(jnp.asarray(logits), how, key)))(keys)
  )


def test_greedy_takes_the_best_whatever_the_key():
  for seed in range(3):
    found = choose(jnp.asarray(LOGITS), Sampling(), jax.random.key(seed))
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(found, LOGITS.argmax(-1))


def test_greedy_ignores_filters():
  how = Sampling(temperature=0, top_k=3, top_p=0.1)
  found = choose(jnp.asarray(LOGITS), how, jax.random.key(0))
  np.testing.assert_array_equal(found, LOGITS.argmax(-1))


@pytest.mark.parametrize(
  "how",
  [
    Sampling(temperature=1.0),
    Sampling(temperature=0.5),
    Sampling(temperature=2.0, top_k=5),
    Sampling(temperature=1.0, top_k=1),
    Sampling(temperature=1.0, top_k=1000),
    Sampling(temperature=1.0, top_p=0.6),
    Sampling(temperature=1.5, top_p=0.9, top_k=8),
    Sampling(temperature=0.7, top_p=1e-6),
    Sampling(temperature=1.0, top_p=1.0),
  ],
  ids=str,
)
def test_choices_have_the_distribution_of_the_oracle(how):
  drawn = draw(LOGITS, how)
  for row in range(3):
    expected = allowed(LOGITS[row], how)
    counts = np.bincount(drawn[:, row], minlength=40) / len(drawn)
    assert set(np.flatnonzero(counts)) <= set(expected)
    for token, prob in expected.items():
      spread = 5 * (prob * (1 - prob) / len(drawn)) ** 0.5 + 1e-3
      assert abs(counts[token] - prob) < spread, (row, token)


@pytest.mark.parametrize("p", [0.05, 0.3, 0.5, 0.8, 0.95])
def test_the_nucleus_is_the_fewest_tokens_that_reach_p(p):
  found = np.asarray(keep_nucleus(jnp.asarray(LOGITS), p))
  for row in range(3):
    kept = set(np.flatnonzero(np.isfinite(found[row])))
    assert kept == set(allowed(LOGITS[row], Sampling(1.0, top_p=p)))
    np.testing.assert_array_equal(
      found[row, list(kept)], LOGITS[row, list(kept)]
    )


def test_the_nucleus_keeps_tokens_that_tie():
  found = keep_nucleus(jnp.zeros((1, 4)), 0.3)
  assert np.isfinite(found).all()


def test_a_seed_repeats_itself_and_rows_differ():
  how = Sampling(temperature=1.0)
  same = jnp.tile(jnp.asarray(LOGITS[:1]), (64, 1))
  one, again, other = (
    np.asarray(choose(same, how, jax.random.key(seed))) for seed in (1, 1, 2)
  )
  np.testing.assert_array_equal(one, again)
  assert (one != other).any()
  assert len(set(one)) > 1


@pytest.mark.parametrize(
  "options",
  [
    {"temperature": -0.1},
    {"temperature": float("nan")},
    {"temperature": 1.0, "top_k": 0},
    {"temperature": 1.0, "top_p": 0.0},
    {"temperature": 1.0, "top_p": 1.1},
  ],
  ids=str,
)
def test_options_that_allow_no_token_are_refused(options):
  with pytest.raises(ConfigError, match="allow no token") as error:
    Sampling(**options)
  name, value = list(options.items())[-1]
  assert f"{name}={value}" in error.value.received
