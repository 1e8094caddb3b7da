"""ERASER's numbers equal a loop over the fractions."""

import numpy as np
import pytest

from gemma_scope.errors import GemmaScopeError
from gemma_scope.evals.rationale import Rationale

HERE = np.asarray([[False] + [True] * 10, [False] + [True] * 6 + [False] * 4])
SCORES = np.random.default_rng(0).normal(size=HERE.shape)


def y(keep):
  return np.sin(keep * HERE * np.arange(HERE.shape[1])).sum(axis=-1)


def test_equal_to_a_loop():
  fractions = (0.05, 0.2, 0.5)
  rationale = Rationale(fractions)
  runs = rationale.runs(SCORES, HERE)
  values = np.stack([y(runs.keep[:, r]) for r in range(runs.keep.shape[1])], 1)
  found = rationale.measure(values, HERE)
  without, alone = np.zeros(2), np.zeros(2)
  for p, here in enumerate(HERE):
    order = sorted(np.flatnonzero(here), key=lambda i: -SCORES[p, i])
    for f in fractions:
      top = order[: max(1, int(np.ceil(f * len(order))))]
      gone, kept = np.ones(here.shape), (~here).astype(float)
      gone[top], kept[top] = 0, 1
      full = y(np.ones(HERE.shape))[p]
      without[p] += (full - y(np.stack([gone] * 2))[p]) / len(fractions)
      alone[p] += (full - y(np.stack([kept] * 2))[p]) / len(fractions)
  np.testing.assert_allclose(found["comprehensiveness"], without, atol=1e-6)
  np.testing.assert_allclose(found["sufficiency"], alone, atol=1e-6)


@pytest.mark.parametrize("fractions", [(), (0.0,), (0.5, 1.2)])
def test_fractions_that_mean_nothing(fractions):
  with pytest.raises(GemmaScopeError, match="which share of the tokens"):
    Rationale(fractions)
