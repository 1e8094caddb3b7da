"""Pooled and per-prompt correlations equal SciPy's; intervals resample rows."""

import numpy as np
import pytest
from scipy import stats

from gemma_scope.errors import GemmaScopeError
from gemma_scope.evals.correlation import correlate

rng = np.random.default_rng(0)
EXACT = [rng.normal(size=(3, n)) * s for n, s in ((4, 1), (6, 5), (5, 0.2))]
NOISY = [x + 0.5 * rng.normal(size=x.shape) + 7 for x in EXACT]


def flat(rows):
  return np.concatenate([np.ravel(row) for row in rows])


def test_equal_to_scipy():
  found = correlate(NOISY, EXACT)
  both = flat(NOISY), flat(EXACT)
  np.testing.assert_allclose(found.pearson.mean, stats.pearsonr(*both)[0])
  np.testing.assert_allclose(found.spearman.mean, stats.spearmanr(*both)[0])
  by_prompt = [
    stats.pearsonr(a.ravel(), b.ravel())[0] for a, b in zip(NOISY, EXACT)
  ]
  np.testing.assert_allclose(found.pearson_by_prompt.mean, np.mean(by_prompt))
  assert (found.cells, found.pearson.n) == (45, 3)
  assert found.pearson.low <= found.pearson.mean <= found.pearson.high


def test_the_interval_equals_resampling_whole_prompts():
  exact = [rng.normal(size=8) for _ in range(30)]
  noisy = [x + rng.normal() * rng.normal(size=8) for x in exact]
  draws = []
  for _ in range(1500):
    chosen = rng.integers(0, 30, 30)
    a, b = (flat([rows[i] for i in chosen]) for rows in (noisy, exact))
    draws.append(np.corrcoef(a, b)[0, 1])
  found = correlate(noisy, exact).pearson
  np.testing.assert_allclose(
    [found.low, found.high], np.percentile(draws, [2.5, 97.5]), atol=0.03
  )


def test_exact_estimates():
  found = correlate(EXACT, EXACT)
  for interval in (found.pearson, found.spearman, found.pearson_by_prompt):
    np.testing.assert_allclose([interval.low, interval.mean], 1)


def test_no_variation():
  found = correlate([np.zeros(3)] * 2, [np.ones(3)] * 2)
  assert np.isnan(found.pearson.mean)
  assert found.pearson_by_prompt.n == 0


@pytest.mark.parametrize(
  ("estimates", "exact"),
  [
    ([np.zeros(3)], [np.zeros(4)]),
    ([np.zeros(3)], [np.zeros(3)] * 2),
    ([np.full(3, np.nan)], [np.zeros(3)]),
    ([], []),
  ],
)
def test_what_does_not_belong_together(estimates, exact):
  with pytest.raises(GemmaScopeError, match="belong together"):
    correlate(estimates, exact)
