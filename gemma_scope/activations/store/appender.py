"""Batches on their way from the device to the disk, in a thread of their own.

Takes what a harvest gave, perhaps not computed yet, waits for it and appends
the rows that count. Two batches wait at most. Norms are computed
on the device, sums of them are the writer's.
"""

import collections
from collections.abc import Callable
from concurrent import futures
import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gemma_scope.activations import distributed
from gemma_scope.activations.corpus.packed_batch import PackedBatch
from gemma_scope.activations.store.writer import NewRows, StoreWriter
from gemma_scope.sites import Site

Progress = Callable[[int], None]

_WAITING = 2


@dataclasses.dataclass(frozen=True)
class Computed:
  """A batch on its way to the disk.

  Attributes:
    values: Site -> [batch * seq, width] on the device.
    batch: What they were computed from.
    state: The pipeline's state behind it.
  """

  values: dict[Site, jax.Array]
  batch: PackedBatch
  state: Any


class Appender:
  """Appends batches in a thread, in order, and commits now and then."""

  def __init__(
    self,
    writer: StoreWriter,
    commit_seconds: float,
    progress: Progress | None,
  ):
    self._writer, self._seconds = writer, commit_seconds
    self._progress = progress
    self._pool = futures.ThreadPoolExecutor(1, "store writer")
    self._waiting: collections.deque[futures.Future] = collections.deque()
    self._last_commit = time.monotonic()
    self._state = writer.committed.state

  def put(self, computed: Computed) -> None:
    """Hands a batch over; waits, or raises, for the one before the last."""
    norms = _norms(computed.values)
    for array in (*computed.values.values(), *norms.values()):
      array.copy_to_host_async()
    self._waiting.append(self._pool.submit(self._append, computed, norms))
    if len(self._waiting) > _WAITING:
      self._waiting.popleft().result()

  def finish(self, *, finished: bool) -> None:
    """Waits for what was handed over, and commits it."""
    try:
      while self._waiting:
        self._waiting.popleft().result()
      self._writer.commit(self._state, finished=finished)
    finally:
      self._pool.shutdown(cancel_futures=True)

  def _append(self, computed: Computed, norms: dict[Site, jax.Array]) -> None:
    writer = self._writer
    number = writer.batches * writer.layout.hosts + writer.host
    writer.append(_new_rows(computed, norms, number))
    self._state = computed.state
    if time.monotonic() - self._last_commit >= self._seconds:
      writer.commit(computed.state)
      self._last_commit = time.monotonic()
    if self._progress is not None:
      self._progress(writer.rows)


def _new_rows(
  computed: Computed, norms: dict[Site, jax.Array], number: int
) -> NewRows:
  """The rows on this machine; waits for the device."""
  local = distributed.local_rows
  return NewRows(
    values={site: local(rows) for site, rows in computed.values.items()},
    norms={site: local(norm)[:, 0] for site, norm in norms.items()},
    tokens=_tokens(computed.batch, number),
    counted=computed.batch.counted.reshape(-1),
  )


def _tokens(batch: PackedBatch, number: int) -> np.ndarray:
  """[batch * seq, 6] int32, in the order of `layout.TOKEN_COLUMNS`."""
  size, seq = batch.shape
  unknown = np.full(batch.shape, -1, np.int32)
  sequence = number * size + np.arange(size)[:, None]
  columns = (
    batch.ids,
    np.broadcast_to(sequence, batch.shape),
    np.broadcast_to(np.arange(seq), batch.shape),
    batch.segment_ids,
    unknown if batch.documents is None else batch.documents,
    unknown if batch.offsets is None else batch.offsets,
  )
  stacked = np.stack([c.reshape(-1) for c in columns], axis=1)
  return stacked.astype(np.int32)


@jax.jit
def _norms(values: dict[Site, jax.Array]) -> dict[Site, jax.Array]:
  """[rows, 1] float32 Euclidean norms."""

  def norm(rows: jax.Array) -> jax.Array:
    squares = jnp.square(rows.astype(jnp.float32))
    return jnp.sqrt(squares.sum(axis=1, keepdims=True))

  return {site: norm(rows) for site, rows in values.items()}
