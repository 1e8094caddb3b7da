"""Stored activations that every side of the training benchmark reads.

One memory-mapped array of float32 rows, read in batches of scattered rows. The
rows are sums of some hundred known directions out of many, with a common
offset and noise, unless a file of real ones is given. NumPy only: the workers
of other libraries import this file from their own environments.
"""

import os
import pathlib

import numpy as np

_ACTIVE = 96  # directions in a row, on average


def write_rows(path: pathlib.Path, count: int, width: int) -> None:
  """Makes rows, if there are none of this form yet.

  Args:
    path: A .npy file.
    count: How many.
    width: Numbers of a row.
  """
  if path.exists() and np.load(path, mmap_mode="r").shape == (count, width):
    return
  rng = np.random.default_rng(0)
  features = 4 * width
  directions = rng.standard_normal((features, width), dtype=np.float32)
  offset = 4 * rng.standard_normal(width, dtype=np.float32)
  path.parent.mkdir(parents=True, exist_ok=True)
  draft = path.with_suffix(".draft.npy")
  rows = np.lib.format.open_memmap(draft, "w+", np.float32, (count, width))
  for start in range(0, count, 1024):
    part = min(1024, count - start)
    present = rng.random((part, features), np.float32) < _ACTIVE / features
    sizes = rng.exponential(1.0, (part, features)).astype(np.float32)
    noise = rng.standard_normal((part, width), dtype=np.float32)
    rows[start : start + part] = (present * sizes) @ directions + noise + offset
  rows.flush()
  os.replace(draft, path)


class Batches:
  """An endless iterator over batches of scattered rows, the same for all."""

  def __init__(self, path: str, batch_rows: int):
    """Opens the rows.

    Args:
      path: A .npy file of [rows, width].
      batch_rows: Rows in a batch.
    """
    self._rows = np.load(path, mmap_mode="r")
    self._order = np.random.default_rng(1).permutation(len(self._rows))
    self._size = batch_rows
    self._next = 0

  @property
  def width(self) -> int:
    """Numbers of a row."""
    return self._rows.shape[1]

  def __next__(self) -> np.ndarray:
    """The next [batch_rows, width], float32, in memory."""
    if self._next + self._size > len(self._order):
      self._next = 0
    chosen = self._order[self._next : self._next + self._size]
    self._next += self._size
    return np.asarray(self._rows[np.sort(chosen)], np.float32)
