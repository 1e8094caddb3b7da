"""A store as a source of rows: shuffled, endless, resumed exactly."""

import itertools

import jax
import numpy as np
import pytest

from gemma_scope.activations.rows import RowSource
from gemma_scope.activations.store import Store, StoreError, StoreRows
from gemma_scope.sites import Site
from tests.activations.store.synthetic import SITES, rows_of, write

ROWS = 60
ALL = rows_of(SITES[0], range(ROWS))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
  folder = tmp_path_factory.mktemp("store")
  write(folder, ROWS // 6)
  return Store.open(folder)


def indices_of(batch) -> list[int]:
  """Which rows of the store a batch has; checks that all sites agree."""
  table = {row.tobytes(): i for i, row in enumerate(ALL)}
  found = [table[row.tobytes()] for row in np.asarray(batch[SITES[0]])]
  for site in batch:
    np.testing.assert_array_equal(batch[site], rows_of(site, found))
  return found


def take(source, count):
  return [indices_of(next(source)) for _ in range(count)]


def test_every_row_once_an_epoch(store):
  source = StoreRows(store, batch_rows=16, seed=1)
  assert isinstance(source, RowSource)
  assert source.sites == SITES
  # 15 batches of 16 are four epochs of 60.
  found = list(itertools.chain(*take(source, 15)))
  epochs = [found[i : i + ROWS] for i in range(0, 4 * ROWS, ROWS)]
  assert all(sorted(epoch) == list(range(ROWS)) for epoch in epochs)
  assert len({tuple(epoch) for epoch in epochs}) == 4


def test_batches_larger_than_the_store(store):
  found = indices_of(next(StoreRows(store, batch_rows=150)))
  assert sorted(found[:60]) == sorted(found[60:120]) == list(range(ROWS))


def test_batches_are_on_the_device_in_the_stores_dtype(store):
  batch = next(StoreRows(store, [SITES[1]], batch_rows=4))
  assert list(batch) == [SITES[1]]
  assert isinstance(batch[SITES[1]], jax.Array)
  assert batch[SITES[1]].dtype == "bfloat16"
  assert batch[SITES[1]].shape == (4, 5)


def test_the_order_depends_on_the_seed_alone(store):
  orders = [
    take(StoreRows(store, batch_rows=7, seed=seed, prefetch=ahead), 20)
    for seed, ahead in ((0, 1), (0, 5), (1, 2))
  ]
  assert orders[0] == orders[1] != orders[2]


@pytest.mark.parametrize("done", [0, 1, 5, 9])
def test_going_on_from_a_state(store, done):
  source = StoreRows(store, batch_rows=16, seed=3, prefetch=3)
  take(source, done)
  state = source.state()
  expected = take(source, 6)
  fresh = StoreRows(store, batch_rows=16, seed=0)
  take(fresh, 2)
  fresh.restore(state)
  assert fresh.state()["position"] == state["position"]
  assert take(fresh, 6) == expected
  source.restore(state)  # and back
  assert take(source, 6) == expected


def test_a_store_that_grew_is_taken_as_it_was(tmp_path):
  write(tmp_path, 4)
  source = StoreRows(Store.open(tmp_path), batch_rows=10)
  state, expected = source.state(), take(source, 5)
  write(tmp_path, 9)
  again = StoreRows(Store.open(tmp_path), batch_rows=10)
  assert max(itertools.chain(*take(again, 5))) > 24
  again.restore(state)
  assert take(again, 5) == expected


def test_a_store_that_shrank(store, tmp_path):
  write(tmp_path, 4)
  state = StoreRows(store).state()
  with pytest.raises(StoreError, match="fewer rows"):
    StoreRows(Store.open(tmp_path)).restore(state)


def test_nothing_to_read(store, tmp_path):
  write(tmp_path, 0)
  with pytest.raises(StoreError, match="nothing to read"):
    StoreRows(Store.open(tmp_path))
  with pytest.raises(StoreError, match="nothing to read"):
    StoreRows(store, batch_rows=0)
  with pytest.raises(StoreError, match="nothing to read"):
    StoreRows(store, [])
  with pytest.raises(StoreError, match="does not have this site"):
    StoreRows(store, [Site("z", 3)])


def test_an_error_while_reading_ahead_is_told(tmp_path):
  write(tmp_path, 4)
  source = StoreRows(Store.open(tmp_path), batch_rows=24)
  (tmp_path / "mlp_in_2" / "c.0.0").unlink()
  with pytest.raises(StoreError, match="damaged"):
    next(source)
