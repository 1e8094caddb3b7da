"""The header of a GGUF file, read in one pass.

A GGUF file is: magic, version, two counts, metadata (typed key/value pairs,
among them the whole tokenizer), the tensor table, padding, tensor data. This
module reads all of it but the data. It does not know Gemma: names and layouts
are mapped in `gguf_checkpoint`. Follows the GGUF specification, versions 2
and 3, little-endian.
"""

from collections.abc import Mapping
import dataclasses
import functools
import mmap
import os
import pathlib
import struct
import time

import numpy as np

from gemma_scope import errors

MAGIC = b"GGUF"
_STRING, _ARRAY, _BOOL = 8, 9, 7
_SCALARS = {
  0: "<u1",
  1: "<i1",
  2: "<u2",
  3: "<i2",
  4: "<u4",
  5: "<i4",
  6: "<f4",
  _BOOL: "?",
  10: "<u8",
  11: "<i8",
  12: "<f8",
}
_LENGTH = struct.Struct("<Q")
_ENTRY = struct.Struct("<IQ")
_START = struct.Struct("<4sIQQ")
# A younger file may change again before the clock of its folder ticks.
_SETTLED_NS = 2_000_000_000
# Far above any real file; keeps a corrupt count from filling the memory.
_MOST = 1 << 24


@dataclasses.dataclass(frozen=True)
class GgufTensor:
  """One row of the tensor table.

  Attributes:
    name: The tensor's name in the file, such as "blk.0.attn_q.weight".
    shape: Slowest axis first (the file stores the fastest first).
    type_id: How it is packed; a key of `quantization.ENCODINGS` if supported.
    offset: Where its bytes start, from the start of the file.
  """

  name: str
  shape: tuple[int, ...]
  type_id: int
  offset: int


@dataclasses.dataclass(frozen=True)
class GgufHeader:
  """Everything in a GGUF file but the tensor data.

  Attributes:
    path: The file.
    version: The format's version, 2 or 3.
    metadata: Key -> int, float, bool, str, a list of strings (or of lists), or
      a numpy array for arrays of numbers.
    tensors: Name -> row of the tensor table, in file order.
    file_bytes: Size of the file when it was read.
  """

  path: str
  version: int
  metadata: Mapping[str, object]
  tensors: Mapping[str, GgufTensor]
  file_bytes: int


def is_gguf(path: str | os.PathLike) -> bool:
  """Whether the file starts with GGUF's magic."""
  with open(path, "rb") as file:
    return file.read(4) == MAGIC


def read_header(path: str | os.PathLike) -> GgufHeader:
  """Reads metadata and tensor table.

  Args:
    path: A local GGUF file.

  Returns:
    The header; nothing stays open or mapped.

  Raises:
    CheckpointError: not GGUF, an unknown version, cut off, or corrupt.
  """
  path = os.fspath(path)
  status = pathlib.Path(path).stat()
  if time.time_ns() - status.st_mtime_ns < _SETTLED_NS:
    return _read(path, status.st_size)
  return _kept(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=1)  # the weights and the tokenizer both ask
def _kept(path: str, size: int, modified: int) -> GgufHeader:
  del modified  # tells one state of the file from another
  return _read(path, size)


def _read(path: str, size: int) -> GgufHeader:
  if size < _START.size:
    raise _damaged(path, f"{size} bytes")
  with (
    open(path, "rb") as file,
    mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
  ):
    try:
      return _parse(path, data)
    except (
      struct.error,
      UnicodeDecodeError,
      OverflowError,
      _CorruptError,
    ) as error:
      raise _damaged(path, f"{size:,} bytes ({error})") from error


class _CorruptError(Exception):
  """A value in the header that cannot be."""


def _damaged(path: str, found: str) -> errors.CheckpointError:
  return errors.CheckpointError(
    "The GGUF header is cut off or corrupt.",
    received=f"{path}: {found}",
    instead="download the file again; a partial download looks like this",
  )


def _parse(path: str, data: mmap.mmap) -> GgufHeader:
  magic, version, num_tensors, num_keys = _START.unpack_from(data, 0)
  if magic != MAGIC:
    raise errors.CheckpointError(
      "The file is not GGUF.",
      received=f"{path}: starts with {magic!r}, not {MAGIC!r}",
      instead="a .gguf file, or a folder with safetensors or Orbax files",
    )
  if version not in (2, 3):
    raise errors.CheckpointError(
      "This GGUF version cannot be read.",
      received=f"{path}: version {version}",
      instead="a little-endian GGUF file of version 2 or 3",
    )
  cursor = _Cursor(data, _START.size)
  metadata = {}
  for _ in range(_checked(num_keys)):
    key = cursor.string()
    metadata[key] = cursor.value(cursor.integer())
  rows = [_tensor_row(cursor) for _ in range(_checked(num_tensors))]
  alignment = metadata.get("general.alignment", 32)
  if not isinstance(alignment, int) or alignment < 1:
    raise _CorruptError(f"alignment {alignment!r}")
  start = -(-cursor.position // alignment) * alignment
  tensors = {
    name: GgufTensor(name, shape, type_id, start + offset)
    for name, shape, type_id, offset in rows
  }
  return GgufHeader(path, version, metadata, tensors, len(data))


def _tensor_row(cursor: "_Cursor") -> tuple[str, tuple[int, ...], int, int]:
  name = cursor.string()
  rank = cursor.integer()
  if rank > 8:
    raise _CorruptError(f"tensor {name!r} with {rank} axes")
  fastest_first = cursor.numbers("<u8", rank).tolist()
  type_id = cursor.integer()
  (offset,) = cursor.numbers("<u8", 1).tolist()
  return name, tuple(reversed(fastest_first)), type_id, offset


def _checked(count: int) -> int:
  if count > _MOST:
    raise _CorruptError(f"a count of {count:,}")
  return count


class _Cursor:
  """A reading position in mapped bytes."""

  def __init__(self, data: mmap.mmap, position: int):
    self.data = data
    self.position = position

  def integer(self) -> int:
    (value,) = self.numbers("<u4", 1).tolist()
    return value

  def string(self) -> str:
    return self.strings(1)[0]

  def strings(self, count: int) -> list[str]:
    """Reads `count` strings; the hot loop of a header with a tokenizer."""
    data, position, length_at = self.data, self.position, _LENGTH.unpack_from
    found = []
    for _ in range(count):
      (length,) = length_at(data, position)
      start = position + 8
      position = start + length
      found.append(str(data[start:position], "utf-8"))
    if position > len(data):
      raise _CorruptError(f"a string ends at byte {position:,}")
    self.position = position
    return found

  def numbers(self, dtype: str, count: int) -> np.ndarray:
    end = self.position + np.dtype(dtype).itemsize * count
    if end > len(self.data):
      raise _CorruptError(f"an array ends at byte {end:,}")
    found = np.frombuffer(self.data[self.position : end], dtype)
    self.position = end
    return found

  def value(self, type_id: int) -> object:
    if type_id == _STRING:
      return self.string()
    if type_id == _ARRAY:
      element, count = _ENTRY.unpack_from(self.data, self.position)
      self.position += _ENTRY.size
      return self.array(element, _checked(count))
    if type_id not in _SCALARS:
      raise _CorruptError(f"a value of unknown type {type_id}")
    return self.numbers(_SCALARS[type_id], 1).tolist()[0]

  def array(self, element: int, count: int) -> object:
    if element == _STRING:
      return self.strings(count)
    if element == _ARRAY:
      return [self.value(_ARRAY) for _ in range(count)]
    if element not in _SCALARS:
      raise _CorruptError(f"an array of unknown type {element}")
    return self.numbers(_SCALARS[element], count)
