"""The parts of an explanation fit together, and attention survives packing."""

import numpy as np
import pytest

from gemma_scope import errors
from gemma_scope.analysis import explanation as parts


def patterns(layers=2, heads=3, length=40, seed=0):
  scores = np.random.default_rng(seed).normal(0, 3, (layers, heads, length, 1))
  scores = scores * np.random.default_rng(1).normal(0, 1, (length, length))
  scores = np.where(np.tri(length, dtype=bool), scores, -np.inf)
  weights = np.exp(scores - scores.max(-1, keepdims=True))
  return (weights / weights.sum(-1, keepdims=True)).astype(np.float32)


def lens(**changes):
  shape = (2, 3)
  fields = {
    "labels": ("embed", "resid_post[0]"),
    "positions": (0, 1, 2),
    "top_ids": np.zeros(shape, int),
    "top_texts": (("a",) * 3, ("b",) * 3),
    "top_probs": np.zeros(shape),
    "target_probs": np.zeros(shape),
    "target_ranks": np.zeros(shape, int),
  }
  return parts.LensGrid(**{**fields, **changes})


def test_short_prompts_keep_every_weight():
  exact = patterns()
  packed = parts.pack_attention(exact, kinds=("local", "global"))
  assert packed.keys is None
  assert packed.queries == tuple(range(40))
  assert packed.kinds == ("local", "global")
  np.testing.assert_allclose(packed.probabilities, exact, atol=4e-3)
  # The square root keeps weights that plain bytes would round to nothing.
  tiny = np.full((1, 1, 1, 1), 5e-4, np.float32)
  assert parts.pack_attention(tiny).probabilities[0, 0, 0, 0] > 3e-4


def test_long_prompts_keep_the_strongest_keys_of_each_query():
  exact = patterns()
  limit = 2 * 3 * 3 * 40 * 10  # room for ten keys a query
  packed = parts.pack_attention(exact, max_bytes=limit)
  assert packed.weights.nbytes + packed.keys.nbytes <= limit
  assert packed.weights.shape == (2, 3, 40, 10)
  best = -np.sort(-exact, axis=-1)[..., :10]
  np.testing.assert_allclose(packed.probabilities, best, atol=4e-3)
  found = np.take_along_axis(exact, packed.keys.astype(int), axis=-1)
  np.testing.assert_array_equal(found, best)


def test_very_long_prompts_keep_the_last_queries():
  limit = 2 * 3 * 3 * 8 * 5  # room for five queries of eight keys
  exact = patterns()
  packed = parts.pack_attention(exact, max_bytes=limit)
  best = -np.sort(-exact[:, :, 35:], axis=-1)[..., :8]
  np.testing.assert_allclose(packed.probabilities, best, atol=4e-3)
  assert packed.queries == (35, 36, 37, 38, 39)
  assert packed.weights.shape == (2, 3, 5, 8)
  assert parts.pack_attention(patterns(), max_bytes=1).queries == (39,)


def test_selected_queries_keep_their_positions():
  exact = patterns()[:, :, [3, 17]]
  assert parts.pack_attention(exact, queries=(3, 17)).queries == (3, 17)
  assert parts.pack_attention(exact).queries == (38, 39)


def test_residual_is_total_minus_sum():
  scores = np.array([1.0, -0.25, 0.5], np.float32)
  found = parts.TokenAttribution("m", "M", "d", scores, total=1.5)
  assert found.sum == pytest.approx(1.25)
  assert found.residual == pytest.approx(0.25)
  without = parts.TokenAttribution("m", "M", "d", scores)
  assert without.residual is None
  components = parts.ComponentScores(("embed", "mlp_write[0]"), scores[:2], 1.0)
  assert components.residual == pytest.approx(0.25)


@pytest.mark.parametrize(
  ("make", "name"),
  [
    (lambda: lens(top_probs=np.zeros((3, 2))), "lens top_probs"),
    (lambda: lens(top_texts=(("a",) * 3, ("b",))), "lens top_texts"),
    (lambda: lens(top_texts=(("a",) * 3,)), "lens top_texts"),
    (
      lambda: parts.ComponentScores(("embed",), np.zeros(2), 0.0),
      "component values",
    ),
    (
      lambda: parts.ComponentScores(
        ("attn_write[0]",), np.zeros(1), 0.0, np.zeros((2, 4))
      ),
      "heads",
    ),
    (
      lambda: parts.AttentionPatterns(np.zeros((1, 1, 2, 2), "u1"), (0,)),
      "attention weights",
    ),
    (
      lambda: parts.TokenAttribution("m", "M", "d", np.zeros((2, 2))),
      "scores",
    ),
  ],
)
def test_parts_that_do_not_fit_are_refused(make, name):
  with pytest.raises(errors.GemmaScopeError, match=f"{name} has the wrong"):
    make()
