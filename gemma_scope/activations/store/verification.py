"""Recomputes every checksum of a store.

Checks all rows that count, of every array and host: missing and cut files,
and any burst of up to 32 flipped bits in a shard (CRC-32). Reads the whole
store once; changes nothing, and may run while it is being written.
"""

from collections.abc import Callable, Iterator
from concurrent import futures
import dataclasses
import os
import pathlib

from gemma_scope.activations.store import commits, errors
from gemma_scope.activations.store import layout as layouts
from gemma_scope.activations.store.shards import file_checksum

Progress = Callable[[int, int], None]

_THREADS = 4
_SHOWN = 5


@dataclasses.dataclass(frozen=True)
class Verified:
  """What was found to be as it was written.

  Attributes:
    rows: Rows that count.
    shards: Files that were read.
    bytes: Bytes that were read.
  """

  rows: int
  shards: int
  bytes: int


@dataclasses.dataclass(frozen=True)
class _Part:
  """The counted bytes of one file, and what their checksum should be."""

  path: pathlib.Path
  size: int
  checksum: int


def verify(
  path: str | os.PathLike, *, progress: Progress | None = None
) -> Verified:
  """Compares every row that counts with its checksum.

  Args:
    path: The store's folder.
    progress: Called with (bytes read, bytes in all) after every shard.

  Raises:
    StoreError: If anything is missing or not as it was written; names every
      damaged shard, up to five.
  """
  store = pathlib.Path(path).expanduser().absolute()
  layout, _ = layouts.read_manifest(store)
  found = [commits.read_commit(store, h) for h in range(layout.hosts)]
  parts = [
    part
    for host, commit in enumerate(found)
    for part in _parts(store, layout, host, commit)
  ]
  total, done, wrong = sum(part.size for part in parts), 0, []
  with futures.ThreadPoolExecutor(_THREADS) as pool:
    for part, problem in zip(parts, pool.map(_problem, parts)):
      done += part.size
      if problem:
        wrong.append(f"{part.path.relative_to(store)} {problem}")
      if progress is not None:
        progress(done, total)
  if wrong:
    raise _damaged(store, wrong)
  return Verified(sum(c.rows for c in found), len(parts), total)


def _parts(
  store: pathlib.Path, layout: layouts.Layout, host: int, commit: commits.Commit
) -> Iterator[_Part]:
  """All files of one host."""
  shards, inside = divmod(commit.rows, layout.shard_rows)
  for shard in range(shards):
    chunk = layout.chunk(shard, host)
    sums = commits.read_shard(store, chunk)
    for name, array in layout.arrays.items():
      size = layout.shard_rows * array.row_bytes
      yield _Part(array.chunk_path(store, chunk), size, sums.get(name, -1))
  for name, array in layout.arrays.items() if inside else ():
    path = array.chunk_path(store, layout.chunk(shards, host))
    yield _Part(path, inside * array.row_bytes, commit.checksums.get(name, -1))


def _problem(part: _Part) -> str:
  """What is wrong with a file; empty if nothing is."""
  try:
    found = file_checksum(part.path, part.size)
  except OSError as error:
    return "is missing" if not part.path.exists() else f"{error.strerror}"
  if found is None:
    return "is too short"
  return "" if found == part.checksum else "has changed (its checksum differs)"


def _damaged(store: pathlib.Path, wrong: list[str]) -> errors.StoreError:
  more = len(wrong) - _SHOWN
  listed = "; ".join(wrong[:_SHOWN]) + (f"; and {more} more" * (more > 0))
  return errors.StoreError(
    f"The store is damaged: {len(wrong)} of its shards are not as written.",
    received=f"{store}: {listed}",
    instead="these files from a backup, or capture into a new folder; all "
    "other shards are whole",
  )
