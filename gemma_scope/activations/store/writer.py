"""Writes a store: rows in the order they come, counted by commits.

`StoreWriter` is one host's; it makes the store or goes on with it. Computing is
not its business: `capture.capture_to_store` runs a model into one.
"""

from collections.abc import Callable, Mapping
from concurrent import futures
import contextlib
import dataclasses
import os
import pathlib
from typing import Any

import numpy as np

from gemma_scope.activations.store import commits, errors, lock, opening
from gemma_scope.activations.store import layout as layouts
from gemma_scope.activations.store.shards import ShardWriter
from gemma_scope.manifest import Manifest
from gemma_scope.sites import Site

_THREADS = 8


@dataclasses.dataclass(frozen=True)
class NewRows:
  """Rows of a batch; row i of every array is the same token.

  Attributes:
    values: Site -> [rows, width] in the store's dtype.
    norms: Site -> [rows] float32 norms of these.
    tokens: [rows, 6] int32, see `layout.TOKEN_COLUMNS`.
    counted: [rows] bool, which of them to append.
  """

  values: Mapping[Site, np.ndarray]
  norms: Mapping[Site, np.ndarray]
  tokens: np.ndarray
  counted: np.ndarray


class StoreWriter:
  """Appends rows to a store, one host's part of it.

  A context manager: leaving it closes the store, and does not commit.

  Attributes:
    path: The store's folder.
    layout: Its layout.
    host: Which of the layout's hosts this is.
    committed: What counts by now; `committed.state` is where to go on.
  """

  def __init__(
    self,
    path: str | os.PathLike,
    layout: layouts.Layout,
    manifest: Manifest,
    *,
    host: int = 0,
  ):
    """Makes the store, or opens it to go on.

    Args:
      path: The folder; made if it is not there.
      layout: What the store holds.
      manifest: The model and every option that the rows depend on.
      host: Which of `layout.hosts` writes.

    Raises:
      StoreError: If another process writes as this host, the folder holds
        something else or a store of other options, or it is damaged.
    """
    self.path, self.layout = pathlib.Path(path).absolute(), layout
    self.host, self._broken = host, False
    if not 0 <= host < layout.hosts:
      raise _no_such_host(host, layout.hosts)
    opening.make_folder(self.path)
    self._lock = lock.WriterLock(layouts.lock_path(self.path, host))
    self._arrays: dict[str, ShardWriter] = {}
    try:
      opening.make_or_check(self.path, layout, manifest)
      opening.remove_leftovers(self.path, layout, host)
      self.committed = commits.read_commit(self.path, host)
      self._open_arrays()
    except BaseException:
      self._lock.release()
      raise
    self._norms = dict(self.committed.norms)
    self._rows, self._batches = self.committed.rows, self.committed.batches
    self._pool = futures.ThreadPoolExecutor(min(_THREADS, len(self._arrays)))

  @property
  def rows(self) -> int:
    """Rows of this host that were appended, committed or not."""
    return self._rows

  @property
  def batches(self) -> int:
    """Batches of this host that were appended, committed or not."""
    return self._batches

  def append(self, new: NewRows) -> None:
    """Writes the counted rows of a batch; a commit makes them the store's.

    Raises:
      StoreError: If the disk is full or refuses. Then only `close` is left;
        what was committed is safe.
    """
    arrays = {layouts.name_of(site): new.values[site] for site in self._sites}
    arrays[layouts.TOKENS] = new.tokens
    assert all(len(rows) == len(new.counted) for rows in arrays.values())

    def write(name: str) -> None:
      self._arrays[name].append(_chosen(arrays[name], new.counted))

    with self._writing():
      self._each(write)
    for site in self._sites:
      name = layouts.name_of(site)
      norms = new.norms[site][new.counted].astype(np.float64)
      norm, square = self._norms.get(name, (0.0, 0.0))
      added = float(norms.sum()), float((norms * norms).sum())
      self._norms[name] = norm + added[0], square + added[1]
    self._rows += int(new.counted.sum())
    self._batches += 1

  def commit(self, state: Any, *, finished: bool = False) -> None:
    """Makes everything appended so far count.

    Args:
      state: The pipeline's state behind the last batch appended.
      finished: Whether the pipeline has no more.

    Raises:
      StoreError: As `append`.
    """
    with self._writing():
      self._each(lambda name: self._arrays[name].sync())
      self._write_full_shards()
      sums = {name: array.checksum for name, array in self._arrays.items()}
      commit = commits.Commit(
        rows=self._rows,
        batches=self._batches,
        finished=finished,
        checksums=sums,
        norms=dict(self._norms),
        state=state,
      )
      commits.write_commit(self.path, self.host, commit)
    self.committed = commit

  def close(self) -> None:
    """Lets go of the store; rows that were not committed do not count."""
    self._pool.shutdown()
    for array in self._arrays.values():
      # A store left in trouble is made whole by the next writer.
      with contextlib.suppress(OSError):
        array.close(
          whole=not self._broken and self._rows == self.committed.rows
        )
    if not self._broken:
      with contextlib.suppress(OSError):
        write_zarr(self.path, self.layout)
    self._lock.release()

  def __enter__(self) -> "StoreWriter":
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  @property
  def _sites(self) -> tuple[Site, ...]:
    return tuple(self.layout.widths)

  def _open_arrays(self) -> None:
    for path in (self.path / "shards").glob("*.json"):
      shard, host = divmod(int(path.stem), self.layout.hosts)
      full = self.committed.rows // self.layout.shard_rows
      if host == self.host and shard >= full:
        path.unlink()  # written, but never counted
    for name in self.layout.arrays:
      start = self.committed.rows, self.committed.checksums.get(name, 0)
      self._arrays[name] = ShardWriter(
        self.path, self.layout, name, self.host, start
      )

  def _write_full_shards(self) -> None:
    for shard in self._arrays[layouts.TOKENS].full:
      sums = {name: array.full[shard] for name, array in self._arrays.items()}
      chunk = self.layout.chunk(shard, self.host)
      commits.write_shard(self.path, chunk, self.layout.shard_rows, sums)
    for array in self._arrays.values():
      array.full.clear()

  def _each(self, do: Callable[[str], None]) -> None:
    """Does something for all arrays at once; writing releases the GIL."""
    for done in [self._pool.submit(do, name) for name in self._arrays]:
      done.result()

  @contextlib.contextmanager
  def _writing(self):
    """Marks the writer as broken when something goes wrong half-way."""
    assert not self._broken, "this writer failed before"
    self._broken = True
    with errors.told_what_is_safe(self.path, self.committed.rows):
      yield
    self._broken = False


def _chosen(rows: np.ndarray, counted: np.ndarray) -> np.ndarray:
  """The rows that count; copied as plain numbers, which is quicker."""
  if counted.all():
    return rows
  raw = rows.view(f"u{rows.dtype.itemsize}")
  return np.compress(counted, raw, axis=0).view(rows.dtype)


def write_zarr(store: pathlib.Path, layout: layouts.Layout) -> None:
  """Lets other zarr readers see every row that counts by now.

  With several hosts, the rows of a shard that is not full are followed by
  zeros, and shards of hosts that are behind are zeros.
  """
  end = 0
  for host in range(layout.hosts):
    rows = commits.read_commit(store, host).rows
    shard, inside = divmod(rows, layout.shard_rows)
    if rows:
      last, count = (shard, inside) if inside else (shard - 1, None)
      first = layout.chunk(last, host) * layout.shard_rows
      end = max(end, first + (count or layout.shard_rows))
  layouts.write_zarr(store, layout, end)


def _no_such_host(host: int, hosts: int) -> errors.StoreError:
  return errors.StoreError(
    "There is no such host.",
    received=f"host {host} of {hosts}",
    instead=f"a number from 0 to {hosts - 1}",
  )
