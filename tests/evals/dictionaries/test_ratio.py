"""Quotients of sums, their intervals, and differences in pairs."""

import numpy as np
import pytest

from gemma_scope.bootstrap import bootstrap_mean
from gemma_scope.errors import ConfigError
from gemma_scope.evals.dictionaries.ratio import RESAMPLES, Ratio, mean_of

RNG = np.random.default_rng(0)
BELOW = RNG.integers(1, 50, 60).astype(float)
ABOVE = BELOW * RNG.normal(2.0, 0.5, 60)


def test_it_is_the_quotient_of_sums():
  one = Ratio(ABOVE, BELOW)
  assert one.value == pytest.approx(ABOVE.sum() / BELOW.sum())
  assert one.interval().n == one.num_rows == 60
  assert one.interval() == Ratio(ABOVE, BELOW).interval()


def test_rows_of_equal_weight_have_the_interval_of_a_mean():
  found = mean_of(ABOVE).interval()
  mean = bootstrap_mean(ABOVE, resamples=RESAMPLES)
  assert (found.low, found.high) == pytest.approx((mean.low, mean.high))


def test_the_interval_is_that_of_resampled_rows():
  rng = np.random.default_rng(1)
  draws = []
  for _ in range(4000):
    rows = rng.integers(60, size=60)
    draws.append(ABOVE[rows].sum() / BELOW[rows].sum())
  found = Ratio(ABOVE, BELOW).interval()
  low, high = np.percentile(draws, [2.5, 97.5])
  width = high - low
  assert abs(found.low - low) < 0.1 * width
  assert abs(found.high - high) < 0.1 * width


def test_a_difference_is_taken_in_pairs():
  """What rows have in common falls out of it."""
  a, b = Ratio(ABOVE, BELOW), Ratio(ABOVE + 0.1 * BELOW, BELOW)
  found = b.minus(a)
  assert found.mean == pytest.approx(0.1)
  assert found.low == pytest.approx(0.1)
  assert found.high == pytest.approx(0.1)
  assert not a.interval().disjoint(b.interval())
  with pytest.raises(ConfigError, match="on the same rows"):
    a.minus(Ratio(ABOVE[1:], BELOW[1:]))


def test_rows_without_a_token_count_for_nothing():
  one = Ratio(np.append(ABOVE, 0), np.append(BELOW, 0))
  assert one.value == Ratio(ABOVE, BELOW).value
  assert one.num_rows == 60


def test_nothing_over_nothing_is_not_a_number():
  one = Ratio(np.zeros(3), np.zeros(3))
  assert np.isnan(one.value)
  assert one.to_dict() == {"mean": None, "low": None, "high": None, "n": 0}
