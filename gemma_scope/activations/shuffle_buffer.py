"""Rows for training straight from the model, shuffled on the device.

One forward a batch of text gives the rows of all sites; those that count go to
free slots of a buffer for each site, and batches are drawn from it at random
without replacement. When it is half used it is filled up again, so that a batch
mixes tokens of many documents: at most buffer_rows / 2 rows apart in the text.
Every row is given once.

Random numbers come from (seed, refill), so that runs are repeatable; with the
arrays and the pipeline's state a run that was cut off goes on bit for bit. The
memory is buffer_rows * sum of widths * bytes of a number, beside the model.

Works in one process, on one device or a mesh; several processes read a store.
"""

import collections
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from gemma_scope.activations import row_buffers
from gemma_scope.activations.corpus.packed_batch import PackedBatch
from gemma_scope.activations.corpus.pipeline import TokenPipeline
from gemma_scope.activations.harvest import Harvest
from gemma_scope.activations.rows import Rows
from gemma_scope.activations.slots import Slots
from gemma_scope.errors import ConfigError
from gemma_scope.sites import Site

IN_FLIGHT = 2  # forwards that may wait for the device at once


class ModelRows:
  """A `RowSource` that runs the model while it is read.

  Endless if the pipeline is; otherwise it stops when fewer than a batch's rows
  are left, which are not given.

  Attributes:
    harvest: The model and its sites.
    pipeline: Where its text comes from.
    batch_rows: Rows in a batch.
    seed: Of the order of the rows.
    parts: Parts of the buffer that are drawn from on their own.
  """

  def __init__(
    self,
    harvest: Harvest,
    pipeline: TokenPipeline,
    *,
    batch_rows: int = 4096,
    buffer_rows: int = 1 << 18,
    seed: int = 0,
    parts: int | None = None,
  ):
    """Allocates nothing yet.

    Args:
      harvest: The model and its sites.
      pipeline: Where its text comes from.
      batch_rows: Rows in a batch.
      buffer_rows: Rows that the buffer holds of every site.
      seed: Of the order of the rows.
      parts: Parts of the buffer; every batch takes as many rows from each. By
        default the mesh's `data` axis, of which it must be a multiple: the
        same number gives the same batches on any mesh.

    Raises:
      ConfigError: If the buffer is too small for a forward and a batch, too
        large for the device, or the sizes do not divide by `parts`.
    """
    self.harvest, self.pipeline = harvest, pipeline
    self.batch_rows, self.seed = batch_rows, seed
    self.parts = harvest.batch_multiple if parts is None else parts
    self._slots_a_part = buffer_rows // self.parts
    self._check(buffer_rows)
    shardings = {site: harvest.sharding(site) for site in harvest.sites}
    self._shardings = shardings
    self._kernels = row_buffers.Kernels(shardings)
    self._slots = Slots(self.parts, self._slots_a_part)
    self._buffers: row_buffers.Arrays | None = None
    self._refills = 0
    self._running: collections.deque[jax.Array] = collections.deque()

  @property
  def sites(self) -> tuple[Site, ...]:
    """The sites of every batch, in forward order."""
    return self.harvest.sites

  @property
  def buffer_bytes(self) -> int:
    """Bytes of the buffer, on all devices together."""
    row = sum(self.harvest.widths.values()) * self.harvest.dtype.itemsize
    return self.parts * self._slots_a_part * row

  def __iter__(self) -> "ModelRows":
    return self

  def __next__(self) -> Rows:
    """The next batch: site -> [batch_rows, width].

    Raises:
      StopIteration: If the pipeline has ended and too few rows are left.
    """
    rows, live = self.batch_rows // self.parts, self._slots.live
    if live.min() < max(self._slots_a_part // 2, rows):
      self._refill()
    buffers = self._allocated()
    if live.min() >= rows:
      slots = self._kernels.place(self._slots.take(rows))
      return self._kernels.gather(buffers, slots)
    # A part can run dry when text ends, or where rows count unequally often.
    if live.sum() < self.batch_rows:
      raise StopIteration
    places = self._slots.take_anywhere(self.batch_rows)
    return self._kernels.gather_anywhere(buffers, places)

  def state(self) -> dict[str, Any]:
    """The buffer, copied to the host, its slots, and the pipeline's state."""
    buffers = self._allocated()
    return {
      "buffers": {str(s): np.array(a) for s, a in buffers.items()},
      "slots": self._slots.state(),
      "refills": self._refills,
      "pipeline": self.pipeline.state(),
    }

  def restore(self, state: Mapping[str, Any]) -> None:
    """Goes on from a state of a source made alike.

    Raises:
      ConfigError: If the state is one of other sites, another dtype, another
        size of buffer or another pipeline.
    """
    arrays = {str(site): state["buffers"].get(str(site)) for site in self.sites}
    shape = (self.parts, self._slots_a_part)
    for site, width in self.harvest.widths.items():
      found = arrays[str(site)]
      if (
        found is None
        or found.shape != (*shape, width)
        or found.dtype != self.harvest.dtype
      ):
        got = "nothing" if found is None else f"{found.dtype}{found.shape}"
        raise ConfigError(
          "This is the state of a shuffle buffer over something else.",
          received=f"{got} for {site}",
          instead="the same sites, dtype, buffer_rows and parts as before: "
          f"{self.harvest.dtype}{(*shape, width)}",
        )
    self._slots.restore(state["slots"])
    self.pipeline.restore(state["pipeline"])
    self._refills = int(state["refills"])
    self._buffers = None  # frees memory before it is needed
    self._buffers = {
      site: jax.device_put(
        arrays[str(site)], row_buffers.buffer_sharding(self._shardings[site])
      )
      for site in self.sites
    }

  def _allocated(self) -> row_buffers.Arrays:
    if self._buffers is None:
      self._buffers = row_buffers.empty(
        self.harvest.widths,
        (self.parts, self._slots_a_part),
        self.harvest.dtype,
        self._shardings,
      )
    return self._buffers

  def _refill(self) -> None:
    """Runs the model until another forward may not fit."""
    tokens = int(np.prod(self._batch_shape))
    added = False
    while self._slots.free >= tokens // self.parts:
      batch = next(self.pipeline, None)
      if batch is None:
        break
      self._add(batch)
      added = True
    if added:
      self._slots.shuffle([self.seed, self._refills])
      self._refills += 1

  def _add(self, batch: PackedBatch) -> None:
    """Runs the model on one batch and keeps the rows that count."""
    values, counted = self.harvest(batch)
    slots = self._slots.put(batch.counted.reshape(self.parts, -1))
    buffers, self._buffers = self._allocated(), None
    self._buffers = self._kernels.scatter(
      buffers, values, self._kernels.place(slots)
    )
    self._running.append(counted)
    if len(self._running) > IN_FLIGHT:
      self._running.popleft().block_until_ready()

  @property
  def _batch_shape(self) -> tuple[int, int]:
    options = self.pipeline.options
    return options.batch_size, options.seq_len

  def _check(self, buffer_rows: int) -> None:
    parts, (rows, seq) = self.parts, self._batch_shape
    if jax.process_count() > 1:
      raise ConfigError(
        "A shuffle buffer belongs to one process.",
        received=f"{jax.process_count()} processes",
        instead="a store that all processes write, and rows read from there",
      )
    sizes = {"batch_size": rows, "batch_rows": self.batch_rows}
    uneven = {k: v for k, v in sizes.items() if v % parts}
    if uneven or parts % self.harvest.batch_multiple:
      raise ConfigError(
        "The parts of the buffer cannot share these rows equally.",
        received=f"parts={parts}, {sizes}, {self.harvest.batch_multiple} "
        "shards",
        instead="batch_size and batch_rows that are multiples of parts, which "
        "is a multiple of the mesh's data axis",
      )
    least = 2 * max(rows * seq, self.batch_rows)
    if buffer_rows < least:
      raise ConfigError(
        "The shuffle buffer is too small to be half used and filled again.",
        received=f"buffer_rows={buffer_rows:,}; a forward gives {rows * seq:,} "
        f"rows, a batch takes {self.batch_rows:,}",
        instead=f"buffer_rows={least:,} or more",
      )
    self._check_memory()

  def _check_memory(self) -> None:
    devices = [jax.devices()[0]]
    if self.harvest.mesh is not None:
      devices = list(self.harvest.mesh.devices.flat)
    memory = devices[0].memory_stats() or {}
    limit = memory.get("bytes_limit")
    needed = self.buffer_bytes // self.harvest.batch_multiple
    if limit is not None and needed > limit:
      row = self.buffer_bytes // (self.parts * self._slots_a_part)
      raise ConfigError(
        "The shuffle buffer is larger than the device's memory.",
        received=f"{needed / 1e9:.1f} GB a device ({row:,} bytes a row), "
        f"{limit / 1e9:.1f} GB there",
        instead=f"fewer than {limit // row:,} rows a device, fewer sites, or "
        'dtype="bfloat16"',
      )
