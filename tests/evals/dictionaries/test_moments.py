"""Variances from sums about a centre, where float32 would lose them."""

import numpy as np
import pytest

from gemma_scope.evals.dictionaries.moments import mean, moments, variances

RNG = np.random.default_rng(0)
VALUES = RNG.normal(size=(2, 3, 5, 4)).astype(np.float32)
COUNTED = RNG.random((3, 5)) < 0.7


def expected(values, counted):
  """[rows, sites], token by token in float64."""
  values = values.astype(np.float64)
  found = np.zeros((values.shape[1], values.shape[0]))
  for s, site in enumerate(values):
    middle = site[counted].mean(axis=0)
    for r, row in enumerate(site):
      for vector, here in zip(row, counted[r]):
        found[r, s] += here * ((vector - middle) ** 2).sum()
  return found


@pytest.mark.parametrize("shift", [0.0, 1e4])
def test_variances_about_the_own_mean(shift):
  """The centre is near the mean, not at it."""
  values = VALUES + np.float32(shift)
  centre = np.asarray(mean(values, COUNTED)) + np.float32(0.3)
  kept = {k: np.asarray(v) for k, v in moments(values, COUNTED, centre).items()}
  found = variances(kept)
  np.testing.assert_allclose(found, expected(values, COUNTED), rtol=1e-4)
  np.testing.assert_array_equal(kept["tokens"], COUNTED.sum(axis=1))


def test_what_does_not_count_may_be_anything():
  values = np.where(COUNTED[None, :, :, None], VALUES, np.nan)
  whole, other = (
    moments(v, COUNTED, np.zeros((2, 4), np.float32)) for v in (VALUES, values)
  )
  for name, value in whole.items():
    np.testing.assert_array_equal(other[name], value)
  np.testing.assert_array_equal(mean(values, COUNTED), mean(VALUES, COUNTED))


def test_the_mean_of_nothing_is_zero():
  assert not np.asarray(mean(VALUES, np.zeros((3, 5), bool))).any()
