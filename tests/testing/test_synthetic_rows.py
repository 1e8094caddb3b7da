"""Rows without a model."""

import numpy as np

from gemma_scope.activations.rows import RowSource
from gemma_scope.sites import Site
from gemma_scope.testing.synthetic_rows import SyntheticRows

SITES = (Site("mlp_in", 0), Site("mlp_write", 0))


def test_a_restored_source_gives_the_same_rows():
  first = SyntheticRows(SITES, batch_rows=8, width=4)
  assert isinstance(first, RowSource)
  next(first)
  state = first.state()
  expected = next(first)
  second = SyntheticRows(SITES, batch_rows=8, width=4)
  second.restore(state)
  found = next(second)
  assert list(found) == list(SITES)
  for site in SITES:
    assert found[site].shape == (8, 4)
    np.testing.assert_array_equal(found[site], expected[site])


def test_one_site_can_be_rebuilt_from_another():
  source = SyntheticRows(SITES, batch_rows=4096, width=64, features=16)
  x, y = (np.asarray(v) for v in next(source).values())
  x, y = x - x.mean(0), y - y.mean(0)
  missed = y - x @ np.linalg.lstsq(x, y)[0]
  assert np.square(missed).sum() < 0.05 * np.square(y).sum()
