"""The shuffled order is one, and looks random."""

import numpy as np
import pytest

from gemma_scope.activations.store.permutation import shuffled


def order(size, seed=0, epoch=0):
  return shuffled(np.arange(size), size, seed, epoch)


@pytest.mark.parametrize("size", [*range(1, 70), 255, 256, 257, 1000, 4097])
def test_every_row_once(size):
  np.testing.assert_array_equal(np.sort(order(size)), np.arange(size))


def test_any_place_without_those_before():
  whole = order(5000, seed=3, epoch=2)
  places = np.array([4999, 7, 7, 1234])
  np.testing.assert_array_equal(shuffled(places, 5000, 3, 2), whole[places])


def test_seeds_and_epochs_differ():
  orders = [order(1000, s, e) for s in (0, 1, -1) for e in (0, 1)]
  agree = [(a == b).mean() for i, a in enumerate(orders) for b in orders[:i]]
  assert max(agree) < 0.01


def test_neighbours_are_far_apart():
  """Distances of consecutive rows, and places, are those of a random order."""
  size = 20_000
  found = order(size)
  # |x - y| of two random places has mean n/3 and deviation n/sqrt(18).
  for numbers in (found, np.argsort(found)):
    apart = np.abs(np.diff(numbers)).mean() / size
    assert abs(apart - 1 / 3) < 4 * (1 / 18) ** 0.5 / size**0.5
  # Every tenth of the order draws evenly from every tenth of the rows.
  table = np.histogram2d(np.arange(size), found, bins=10)[0]
  chi_square = ((table - size / 100) ** 2 / (size / 100)).sum()
  assert 30 < chi_square < 145  # 81 degrees of freedom, 5 deviations


def test_large_numbers():
  found = shuffled(np.arange(1000), 10**12, 0, 0)
  assert len(set(found.tolist())) == 1000
  assert 0.4 < found.mean() / 10**12 < 0.6
