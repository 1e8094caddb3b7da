"""Reads a store: rows of a site by index, in milliseconds for a batch.

Shards are mapped into memory, so what was read once comes from the page cache,
which all processes share. A store larger than half of the memory is read
without read-ahead: pages that nobody asked for would push out others.
"""

from collections.abc import Mapping
from concurrent import futures
import dataclasses
import functools
import mmap
import os
import pathlib
import threading

import numpy as np

from gemma_scope.activations.store import commits, errors
from gemma_scope.activations.store import layout as layouts
from gemma_scope.manifest import Manifest
from gemma_scope.sites import Site

_THREADS = 8  # page faults are waited for side by side
_PIECE = 512  # rows that one thread copies at a time
_MAX_MAPS = 8192  # of the 65,530 that Linux gives a process


@dataclasses.dataclass(frozen=True)
class SiteStatistics:
  """What scaling the inputs of a dictionary needs.

  Attributes:
    rows: Rows that were measured: all of the store.
    mean_norm: Mean Euclidean norm of a row.
    mean_square_norm: Mean squared norm of a row; dividing rows by its square
      root gives them unit mean squared norm.
  """

  rows: int
  mean_norm: float
  mean_square_norm: float


@dataclasses.dataclass(frozen=True)
class TokensOfRows:
  """The tokens behind some rows, each int32 [rows]; -1 where not known.

  Attributes:
    id: The token's id.
    sequence: The packed row it was in, counted over the whole capture.
    position: Its column there.
    segment: Which piece of the packed row, counted from 1.
    document: Index of its document in the corpus.
    offset: Its place in the document.
  """

  id: np.ndarray
  sequence: np.ndarray
  position: np.ndarray
  segment: np.ndarray
  document: np.ndarray
  offset: np.ndarray


@dataclasses.dataclass(frozen=True, repr=False)
class Store:
  """The rows of a store that counted when it was opened.

  A row keeps its index while one host appends. With several hosts, those of
  host 0 come first, so indices hold for one `extent`.

  Attributes:
    path: The folder.
    layout: What is in it.
    manifest: What it was captured from.
    extent: Rows of each host.
  """

  path: pathlib.Path
  layout: layouts.Layout
  manifest: Manifest
  extent: tuple[int, ...]

  @classmethod
  def open(cls, path: str | os.PathLike) -> "Store":
    """Opens a store, also while it is being written.

    Args:
      path: Its folder.

    Raises:
      StoreError: If there is no store, or its small files are damaged; `verify`
        checks the rows themselves.
    """
    folder = pathlib.Path(path).expanduser().absolute()
    layout, manifest = layouts.read_manifest(folder)
    rows = (commits.read_commit(folder, h).rows for h in range(layout.hosts))
    return cls(folder, layout, manifest, tuple(rows))

  def limited(self, extent: tuple[int, ...]) -> "Store":
    """The store as it was when each host had this many rows.

    Raises:
      StoreError: If it never was.
    """
    fits = len(extent) == len(self.extent)
    if not fits or any(a > b for a, b in zip(extent, self.extent)):
      raise errors.StoreError(
        "The store has fewer rows than it had.",
        received=f"{self.path}: {list(self.extent)} rows, asked {list(extent)}",
        instead="the store that this state was saved with",
      )
    return dataclasses.replace(self, extent=tuple(extent))

  @property
  def sites(self) -> tuple[Site, ...]:
    """The sites, in forward order."""
    return tuple(self.layout.widths)

  @property
  def num_rows(self) -> int:
    """Rows of each site."""
    return sum(self.extent)

  @property
  def dtype(self) -> np.dtype:
    """Dtype of the rows."""
    return layouts.DTYPES[self.layout.dtype]

  @functools.cached_property
  def statistics(self) -> Mapping[Site, SiteStatistics]:
    """Site -> mean norms over all rows that count by now."""
    found = [
      commits.read_commit(self.path, h) for h in range(self.layout.hosts)
    ]
    rows = sum(commit.rows for commit in found)
    sums = {
      site: np.sum([c.norms[layouts.name_of(site)] for c in found if c.rows], 0)
      for site in self.sites
      if rows
    }
    return {
      site: SiteStatistics(rows, float(a) / rows, float(b) / rows)
      for site, (a, b) in sums.items()
    }

  def rows(self, site: Site, indices: np.ndarray) -> np.ndarray:
    """Rows of one site.

    Args:
      site: One of `sites`.
      indices: [n] whole numbers from 0 to `num_rows`, in any order.

    Returns:
      [n, width] in `dtype`.

    Raises:
      StoreError: If the site is not there, an index is out of range or a shard
        is missing.
    """
    if site not in self.layout.widths:
      raise errors.StoreError(
        "The store does not have this site.",
        received=str(site),
        instead=f"one of {', '.join(map(str, self.sites))}",
      )
    return self._gather(layouts.name_of(site), indices)

  def tokens(self, indices: np.ndarray) -> TokensOfRows:
    """The tokens behind rows: which text they come from.

    Args:
      indices: [n] whole numbers from 0 to `num_rows`.
    """
    return TokensOfRows(*self._gather(layouts.TOKENS, indices).T)

  def context(self, index: int, before: int = 32, after: int = 8) -> np.ndarray:
    """Indices of the rows around one, from the same piece of text, in order.

    Tokens that do not count, such as BOS, are not among them.

    Args:
      index: The row.
      before: How many rows in front of it at most.
      after: How many behind it at most.
    """
    first = max(0, index - before)
    near = np.arange(first, min(self.num_rows, index + after + 1))
    there = self.tokens(near)
    place = np.stack([there.sequence, there.segment])
    return near[(place == place[:, [index - first]]).all(axis=0)]

  def __repr__(self) -> str:
    gigabytes = self.num_rows * self.layout.bytes_per_row / 1e9
    return (
      f"Store({str(self.path)!r}, {self.num_rows:,} rows of "
      f"{len(self.sites)} sites, {self.layout.dtype}, {gigabytes:.2f} GB)"
    )

  def _gather(self, name: str, indices: np.ndarray) -> np.ndarray:
    array = self.layout.arrays[name]
    chunks, inside = self._locate(np.asarray(indices))
    raw = np.dtype(
      f"u{array.dtype.itemsize}"
    )  # numpy copies it without the GIL
    found = np.empty((len(chunks), array.width), raw)

    def copy(piece: np.ndarray) -> None:
      mapped = self._maps.get(name, int(chunks[piece[0]]))
      found[piece] = np.take(mapped.view(raw), inside[piece], axis=0)

    pieces = _pieces(chunks)
    if len(pieces) == 1:
      copy(pieces[0])
    else:
      list(self._pool.map(copy, pieces))
    return found.view(array.dtype)

  def _locate(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Chunk and row in it of every index."""
    if indices.ndim != 1 or not np.issubdtype(indices.dtype, np.integer):
      raise _no_such_row(f"{indices.dtype}{list(indices.shape)}", self.num_rows)
    wrong = (indices < 0) | (indices >= self.num_rows)
    if wrong.any():
      raise _no_such_row(indices[wrong][0], self.num_rows)
    ends = np.cumsum(self.extent)
    host = np.searchsorted(ends, indices, side="right")
    local = indices - (ends - np.asarray(self.extent))[host]
    shard, inside = np.divmod(local, self.layout.shard_rows)
    return shard * self.layout.hosts + host, inside

  @functools.cached_property
  def _maps(self) -> "_Maps":
    return _Maps(self)

  @functools.cached_property
  def _pool(self) -> futures.ThreadPoolExecutor:
    return futures.ThreadPoolExecutor(_THREADS, "store")


class _Maps:
  """The shards that are mapped; the oldest is let go when there are many."""

  def __init__(self, store: Store):
    self._path, self._layout = store.path, store.layout
    self._extent = store.extent
    size = store.num_rows * store.layout.bytes_per_row
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    self._larger_than_memory = size > memory // 2
    self._open: dict[tuple[str, int], np.ndarray] = {}
    self._lock = threading.Lock()

  def get(self, name: str, chunk: int) -> np.ndarray:
    """[rows that count, width] of one shard, mapped."""
    with self._lock:
      found = self._open.get((name, chunk))
      if found is None:
        found = self._open[name, chunk] = self._map(name, chunk)
      if len(self._open) > _MAX_MAPS:
        del self._open[next(iter(self._open))]
    return found

  def _map(self, name: str, chunk: int) -> np.ndarray:
    array = self._layout.arrays[name]
    shard, host = divmod(chunk, self._layout.hosts)
    before = shard * self._layout.shard_rows
    count = min(self._extent[host] - before, self._layout.shard_rows)
    path = array.chunk_path(self._path, chunk)
    try:
      with open(path, "rb") as file:
        mapped = mmap.mmap(
          file.fileno(), count * array.row_bytes, access=mmap.ACCESS_READ
        )
    except (OSError, ValueError) as error:
      raise errors.damaged(path, str(error)) from error
    if self._larger_than_memory:
      mapped.madvise(mmap.MADV_RANDOM)
    return np.frombuffer(mapped, array.dtype).reshape(count, array.width)


def _pieces(chunks: np.ndarray) -> list[np.ndarray]:
  """Groups of positions that lie in one chunk, none too large."""
  order = np.argsort(chunks, kind="stable")
  cuts = np.flatnonzero(np.diff(chunks[order])) + 1
  groups = np.split(order, cuts)
  return [
    group[i : i + _PIECE]
    for group in groups
    for i in range(0, len(group), _PIECE)
  ]


def _no_such_row(received: object, rows: int) -> errors.StoreError:
  return errors.StoreError(
    "The store has no such rows.",
    received=received,
    instead=f"a list of whole numbers from 0 to {rows - 1}",
  )
