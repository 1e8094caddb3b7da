"""Where training and evaluation get their vectors: batches of rows by site.

A row is one token that counts; row i of every site of a batch is the same
token. A source is an iterator with a state, so that a run that was cut off goes
on with the very rows it would have seen: `restore(state())` into a fresh source
of the same construction, then `next`, gives bitwise what the first would have
given. Members: `shuffle_buffer.ModelRows` (on the fly from a model, through a
shuffle buffer on the device) and `store.StoreRows` (from a store, shuffled
globally).
"""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import jax

from gemma_scope.sites import Site

Rows = Mapping[Site, jax.Array]  # each [rows, width], z with heads concatenated


@runtime_checkable
class RowSource(Protocol):
  """An endless iterator over batches of rows that can be saved and resumed."""

  @property
  def sites(self) -> tuple[Site, ...]:
    """The sites of every batch."""
    ...

  @property
  def batch_rows(self) -> int:
    """Rows in a batch; every batch has as many."""
    ...

  def __next__(self) -> Rows:
    """The next batch: site -> [batch_rows, width], on the device."""
    ...

  def state(self) -> dict[str, Any]:
    """All that the next batches depend on besides the constructor's arguments.

    A tree of dicts with arrays, ints, floats and strings as leaves; may hold
    device arrays that stay valid when iteration goes on.
    """
    ...

  def restore(self, state: Mapping[str, Any]) -> None:
    """Goes on from a state that `state()` gave."""
    ...
