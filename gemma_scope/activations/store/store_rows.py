"""Rows of a store as a source for training: shuffled over all of it.

Batch after batch in a random order of all rows, another one each epoch; batches
go over the end of an epoch, so that each row is seen once in each. The order is
computed (`permutation`), so the state is three numbers and the rows there were.
Batches to come are read in a thread meanwhile.
"""

import collections
from collections.abc import Iterable, Mapping
from concurrent import futures
import dataclasses
from typing import Any

import jax
import numpy as np

from gemma_scope.activations.rows import Rows
from gemma_scope.activations.store import errors
from gemma_scope.activations.store.permutation import shuffled
from gemma_scope.activations.store.reader import Store
from gemma_scope.sites import Site


@dataclasses.dataclass(frozen=True)
class _Place:
  """Where a batch starts: `position` rows into an epoch."""

  seed: int
  epoch: int
  position: int

  def indices(self, count: int, size: int) -> np.ndarray:
    """The rows of a batch that starts here."""
    places = np.arange(self.position, self.position + count, dtype=np.int64)
    epochs, places = np.divmod(places, size)
    found = np.empty(count, np.int64)
    for epoch in np.unique(epochs):
      inside = epochs == epoch
      found[inside] = shuffled(
        places[inside], size, self.seed, self.epoch + int(epoch)
      )
    return found

  def after(self, count: int, size: int) -> "_Place":
    """Where the next batch starts."""
    epochs, position = divmod(self.position + count, size)
    return _Place(self.seed, self.epoch + epochs, position)


class StoreRows:
  """A `RowSource` over a store, in a random order without end.

  Attributes:
    sites: The sites of every batch.
    batch_rows: Rows in a batch.
  """

  def __init__(
    self,
    store: Store,
    sites: Iterable[Site] | None = None,
    *,
    batch_rows: int = 4096,
    seed: int = 0,
    prefetch: int = 2,
  ):
    """Starts at the first batch.

    Args:
      store: The store, with the rows that it had when it was opened.
      sites: Which of its sites; all by default.
      batch_rows: Rows in a batch.
      seed: Chooses the order.
      prefetch: How many batches are read ahead.

    Raises:
      StoreError: If the store is empty or lacks a site.
    """
    self.sites = tuple(store.sites if sites is None else sites)
    self.batch_rows = batch_rows
    self._store, self._depth = store, max(1, prefetch)
    if not store.num_rows or batch_rows < 1 or not self.sites:
      raise errors.StoreError(
        "There is nothing to read.",
        received=f"{store}, batch_rows={batch_rows}, {len(self.sites)} sites",
        instead="a store with rows, at least one site and row a batch",
      )
    for site in self.sites:
      store.rows(site, np.zeros(0, np.int64))  # refuses a site it lacks
    self._place = self._ahead = _Place(seed, 0, 0)
    self._pool = futures.ThreadPoolExecutor(1, "store rows")
    self._coming: collections.deque[futures.Future] = collections.deque()

  def __iter__(self) -> "StoreRows":
    return self

  def __next__(self) -> Rows:
    """The next batch: site -> [batch_rows, width] in the store's dtype."""
    while len(self._coming) < self._depth:
      self._coming.append(self._pool.submit(self._read, self._ahead))
      self._ahead = self._following(self._ahead)
    values = self._coming.popleft().result()
    self._place = self._following(self._place)
    return {site: jax.numpy.asarray(rows) for site, rows in values.items()}

  def state(self) -> dict[str, Any]:
    """The next batch's place, and the rows there were of each host."""
    extent = np.asarray(self._store.extent, np.int64)
    return dataclasses.asdict(self._place) | {"extent": extent}

  def restore(self, state: Mapping[str, Any]) -> None:
    """Goes on from a state; a store that grew since is taken as it was.

    Raises:
      StoreError: If the store has fewer rows than it had.
    """
    extent = tuple(int(rows) for rows in np.asarray(state["extent"]))
    self._store = self._store.limited(extent)
    numbers = (int(state[k]) for k in ("seed", "epoch", "position"))
    self._place = self._ahead = _Place(*numbers)
    self._coming.clear()

  def _following(self, place: _Place) -> _Place:
    return place.after(self.batch_rows, self._store.num_rows)

  def _read(self, place: _Place) -> dict[Site, np.ndarray]:
    indices = place.indices(self.batch_rows, self._store.num_rows)
    return {site: self._store.rows(site, indices) for site in self.sites}
