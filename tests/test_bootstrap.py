"""Intervals cover what they promise, and pairs are kept."""

import numpy as np
import pytest

from gemma_scope.bootstrap import (
  Interval,
  bootstrap_mean,
  paired_difference,
  resampling_counts,
)
from gemma_scope.errors import GemmaScopeError


def test_intervals_cover_the_true_mean():
  rng = np.random.default_rng(0)
  trials, covered = 400, 0
  for trial in range(trials):
    found = bootstrap_mean(rng.gamma(2.0, size=60), resamples=500, seed=trial)
    covered += found.low <= 2.0 <= found.high
  # 95 % promised; the percentile interval is known to fall a little short on
  # skewed data. Four standard errors of 400 trials are 4 %.
  assert 0.90 <= covered / trials <= 0.98


def test_mean_and_number_of_prompts():
  found = bootstrap_mean(np.asarray([1.0, 2.0, np.nan, 6.0]))
  assert (found.mean, found.n) == (3.0, 3)
  assert 1.0 <= found.low < 3.0 < found.high <= 6.0


def test_one_value_has_no_width():
  assert bootstrap_mean(np.full(5, 2.0)) == Interval(2.0, 2.0, 2.0, 5)


def test_pairs_stay_together():
  rng = np.random.default_rng(1)
  prompt = 100 * rng.normal(size=50)  # prompts differ far more than methods
  a, b = prompt + 1.0, prompt + 0.1 * rng.normal(size=50)
  found = paired_difference(a, b)
  assert found.excludes_zero()
  assert found.low > 0.9
  assert not bootstrap_mean(a).disjoint(bootstrap_mean(b))


def test_shown_with_as_many_digits_as_asked_for():
  found = Interval(0.25, -0.5, 1.0, 9)
  assert str(found) == f"{found}" == "0.250 [-0.500, 1.000]"
  assert f"{found:+.1f}" == "+0.2 [-0.5, +1.0]"


def test_disjoint():
  low, high = Interval(1, 0, 2, 9), Interval(4, 3, 5, 9)
  assert low.disjoint(high)
  assert high.disjoint(low)
  assert not low.disjoint(Interval(2, 2, 3, 9))


def test_every_draw_has_as_many_prompts():
  assert (resampling_counts(7, 20, 0).sum(axis=1) == 7).all()


@pytest.mark.parametrize("values", [np.zeros(0), np.full(3, np.nan)])
def test_nothing_to_resample(values):
  with pytest.raises(GemmaScopeError, match="one number for each"):
    bootstrap_mean(values)


def test_other_prompts():
  with pytest.raises(GemmaScopeError, match="both numbers of every prompt"):
    paired_difference(np.zeros(3), np.zeros(4))
