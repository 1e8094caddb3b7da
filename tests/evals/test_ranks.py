"""Rank statistics equal SciPy's, ties included."""

import numpy as np
import pytest
from scipy import stats

from gemma_scope.evals import ranks

rng = np.random.default_rng(0)
PAIRS = [
  (rng.normal(size=20), rng.normal(size=20)),
  (rng.integers(0, 4, 15), rng.integers(0, 3, 15)),
  (np.arange(5.0), -np.arange(5.0)),
]


@pytest.mark.parametrize("pair", PAIRS)
def test_equal_to_scipy(pair):
  a, b = pair
  np.testing.assert_allclose(ranks.average_ranks(a), stats.rankdata(a))
  np.testing.assert_allclose(ranks.pearson(a, b), stats.pearsonr(a, b)[0])
  np.testing.assert_allclose(ranks.spearman(a, b), stats.spearmanr(a, b)[0])
  np.testing.assert_allclose(ranks.kendall(a, b), stats.kendalltau(a, b)[0])


def test_no_variation_has_no_correlation():
  constant, other = np.ones(4), np.arange(4.0)
  for f in (ranks.pearson, ranks.spearman, ranks.kendall):
    assert np.isnan(f(constant, other))
  assert np.isnan(ranks.pearson(np.ones(1), np.ones(1)))


def test_top_k_overlap():
  a, b = np.asarray([4, 3, 2, 1.0]), np.asarray([1, 4, 3, 2.0])
  assert ranks.top_k_overlap(a, b, 1) == 0
  assert ranks.top_k_overlap(a, b, 2) == 0.5
  assert ranks.top_k_overlap(a, b, 9) == 1
  assert np.isnan(ranks.top_k_overlap(a, b, 0))
