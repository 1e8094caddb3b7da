"""The shard files of one array: rows are appended, and counted by commits.

A file grows until its shard is full; the next rows go to the next file. Only
what a commit counts is there for readers, so nothing has to be renamed: a file
that was written further than the last commit is cut back when a writer goes on.
"""

import os
import pathlib
from typing import BinaryIO
import zlib

import numpy as np

from gemma_scope.activations.store import errors
from gemma_scope.activations.store.layout import (
  ArraySpec,
  Layout,
  sync_folder,
)
from gemma_scope.weights.safetensors_file import raw_bytes

_PIECE = 1 << 24


class ShardWriter:
  """Appends rows of one array of one host.

  Attributes:
    checksum: CRC-32 of the bytes in the shard that is not full.
    full: Shard number -> CRC-32, of shards filled since it was last cleared.
  """

  def __init__(
    self,
    store: pathlib.Path,
    layout: Layout,
    name: str,
    host: int,
    start: tuple[int, int],
  ):
    """Opens the shard that is not full and cuts off what no commit counts.

    Args:
      store: The store's folder.
      layout: Of the store.
      name: Which of its arrays.
      host: Whose shards.
      start: (rows that count, CRC-32 of those in the last shard).

    Raises:
      StoreError: If counted rows are missing or have changed.
    """
    self.spec: ArraySpec = layout.arrays[name]
    self.full: dict[int, int] = {}
    self._store, self._layout, self._host = store, layout, host
    rows, self.checksum = start
    self._shard, inside = divmod(rows, layout.shard_rows)
    self._filled = inside * self.spec.row_bytes
    self._file: BinaryIO | None = None
    (store / name).mkdir(exist_ok=True)
    self._remove_later()
    if inside:
      self._file = self._reopen()

  def append(self, rows: np.ndarray) -> None:
    """Writes rows, [rows, width], and starts new shards where one is full.

    Raises:
      OSError: If the system refuses; then this writer is of no more use.
    """
    assert rows.shape[1:] == (self.spec.width,), rows.shape
    assert rows.dtype == self.spec.dtype, rows.dtype
    data = raw_bytes(rows)
    size = self._layout.shard_rows * self.spec.row_bytes
    while data:
      if self._file is None:
        self._file = open(self._path(), "wb", buffering=0)  # noqa: SIM115
      piece, data = data[: size - self._filled], data[size - self._filled :]
      _write(self._file, piece)
      self.checksum = zlib.crc32(piece, self.checksum)
      self._filled += piece.nbytes
      if self._filled == size:
        self._close_full()

  def sync(self) -> None:
    """Flushes all that was appended to the disk, names of files included."""
    if self._file is not None:
      os.fsync(self._file.fileno())
    sync_folder(self._store / self.spec.name)

  def close(self, *, whole: bool) -> None:
    """Closes the file.

    Args:
      whole: Give the last file its full length, as zarr wants it; a hole takes
        no space.
    """
    if self._file is None:
      return
    if whole:
      self._file.truncate(self._layout.shard_rows * self.spec.row_bytes)
    self._file.close()
    self._file = None

  def _close_full(self) -> None:
    assert self._file is not None
    os.fsync(self._file.fileno())
    self._file.close()
    self.full[self._shard] = self.checksum
    self._file, self._filled, self.checksum = None, 0, 0
    self._shard += 1

  def _path(self) -> pathlib.Path:
    chunk = self._layout.chunk(self._shard, self._host)
    return self.spec.chunk_path(self._store, chunk)

  def _reopen(self) -> BinaryIO:
    path = self._path()
    if not path.exists():
      raise errors.damaged(path, "the shard is missing")
    found = file_checksum(path, self._filled)
    if found != self.checksum:
      raise errors.damaged(path, "the shard is not as it was written")
    file = open(path, "r+b", buffering=0)  # noqa: SIM115
    file.truncate(self._filled)
    file.seek(self._filled)
    return file

  def _remove_later(self) -> None:
    """Removes files of this host beyond the last shard that counts."""
    last = self._shard if self._filled else self._shard - 1
    for path in (self._store / self.spec.name).glob("c.*.0"):
      shard, host = divmod(int(path.name.split(".")[1]), self._layout.hosts)
      if host == self._host and shard > last:
        path.unlink()


def file_checksum(path: pathlib.Path, size: int) -> int | None:
  """CRC-32 of the first `size` bytes of a file; None where it is shorter."""
  found, left = 0, size
  with open(path, "rb", buffering=0) as file:
    while left:
      piece = file.read(min(left, _PIECE))
      if not piece:
        return None
      found, left = zlib.crc32(piece, found), left - len(piece)
  return found


def _write(file: BinaryIO, data: memoryview) -> None:
  """Writes all of it; a disk that fills up takes a part first."""
  while data:
    data = data[file.write(data) :]
