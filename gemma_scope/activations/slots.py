"""Which slots of a shuffle buffer hold rows, and which row comes next.

Every part of a buffer (one for each shard, so that rows never travel) has a
permutation of its slots: the first `live` of them hold rows, the others are
free. Rows are taken from the end of the live ones, which frees their slots; new
ones go behind; shuffling permutes the live ones. Everything is numbers on the
host: nothing waits for the device.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from gemma_scope.errors import ConfigError


class Slots:
  """The slots of a buffer of `parts` parts.

  Attributes:
    order: [parts, slots] int32, a permutation in each row.
    live: [parts] int64, how many of the first slots in `order` hold rows.
  """

  def __init__(self, parts: int, slots: int):
    """All slots are free."""
    self.order = np.tile(np.arange(slots, dtype=np.int32), (parts, 1))
    self.live = np.zeros(parts, np.int64)

  @property
  def free(self) -> int:
    """Free slots of the part that has the fewest."""
    return self.order.shape[1] - int(self.live.max())

  def take(self, rows: int) -> np.ndarray:
    """Takes as many rows from every part.

    Args:
      rows: Of each part; it must hold as many.

    Returns:
      [parts, rows] int32 slots.
    """
    columns = self.live[:, None] - 1 - np.arange(rows)[None]
    self.live -= rows
    return np.take_along_axis(self.order, columns, axis=1)

  def take_anywhere(self, rows: int) -> np.ndarray:
    """Takes rows from the parts in proportion to what they hold.

    Args:
      rows: In all; the parts together must hold as many.

    Returns:
      [rows] int64 places in the parts laid one after the other.
    """
    counts = self.live * rows // self.live.sum()
    while (missing := rows - counts.sum()) > 0:
      more = np.flatnonzero(self.live > counts)[:missing]
      counts[more] += 1
    size = self.order.shape[1]
    found = [
      order[live - count : live] + np.int64(part * size)
      for part, (order, live, count) in enumerate(
        zip(self.order, self.live, counts)
      )
    ]
    self.live -= counts
    return np.concatenate(found)

  def put(self, counted: np.ndarray) -> np.ndarray:
    """Finds slots for new rows.

    Args:
      counted: [parts, rows] bool, which of the rows are kept.

    Returns:
      [parts, rows] int32 slots; past the last slot, and all different, for
      rows that are not kept.
    """
    parts, rows = counted.shape
    slots = self.order.shape[1]
    found = np.tile(np.arange(slots, slots + rows, dtype=np.int32), (parts, 1))
    for part in range(parts):
      here = counted[part]
      start, number = self.live[part], int(here.sum())
      found[part, here] = self.order[part, start : start + number]
      self.live[part] += number
    return found

  def shuffle(self, seed: list[int]) -> None:
    """Permutes the rows that are there, each part on its own."""
    rng = np.random.default_rng(seed)
    for order, live in zip(self.order, self.live):
      rng.shuffle(order[:live])

  def state(self) -> dict[str, np.ndarray]:
    """Copies of both arrays."""
    return {"order": self.order.copy(), "live": self.live.copy()}

  def restore(self, state: Mapping[str, Any]) -> None:
    """Takes over the arrays of `state()`.

    Raises:
      ConfigError: If they are those of a buffer of another size.
    """
    order, live = (np.asarray(state[name]) for name in ("order", "live"))
    if order.shape != self.order.shape or live.shape != self.live.shape:
      raise ConfigError(
        "This is the state of a shuffle buffer of another size.",
        received=f"{order.shape[0]} parts of {order.shape[1:]} slots",
        instead="the same buffer_rows and parts as before: "
        f"{self.order.shape[0]} parts of {self.order.shape[1]} slots",
      )
    self.order = order.astype(np.int32)
    self.live = live.astype(np.int64)
