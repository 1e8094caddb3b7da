"""One safetensors file: header, mapped tensors, streamed writing.

A file is: the header's length (8 bytes), the header (JSON: name -> dtype,
shape, offsets), the tensors' bytes. Tensors are numpy views of the mapped file,
bfloat16 included. Which tensors belong to a model is not known here.
"""

from collections.abc import Iterable, Mapping
import dataclasses
import functools
import json
import math
import os
from typing import BinaryIO

import ml_dtypes
import numpy as np

from gemma_scope import errors
from gemma_scope.weights import checkpoint

# The reference implementation refuses longer headers.
_MOST_HEADER_BYTES = 100_000_000
_ALIGNMENT = 64
DTYPES = {
  "F32": np.dtype(np.float32),
  "F16": np.dtype(np.float16),
  "BF16": np.dtype(ml_dtypes.bfloat16),
}
_CODES = {dtype: code for code, dtype in DTYPES.items()}


@dataclasses.dataclass(frozen=True)
class Slot:
  """Where one tensor lies in its file.

  Attributes:
    code: The dtype as the file spells it, such as "BF16".
    shape: The tensor's shape.
    start: Its first byte, from the start of the file.
    nbytes: How many bytes it has.
  """

  code: str
  shape: tuple[int, ...]
  start: int
  nbytes: int


@dataclasses.dataclass(frozen=True)
class SafetensorsHeader:
  """What a safetensors file says of itself.

  Attributes:
    path: The file.
    slots: Name -> place of the tensor.
    metadata: The file's own string -> string map.
  """

  path: str
  slots: Mapping[str, Slot]
  metadata: Mapping[str, str]


def read_header(path: str | os.PathLike) -> SafetensorsHeader:
  """Reads and checks the header.

  Args:
    path: A local safetensors file.

  Raises:
    CheckpointError: cut off, corrupt, or no safetensors file.
  """
  path = os.fspath(path)
  size = os.path.getsize(path)
  with open(path, "rb") as file:
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(size - 8, _MOST_HEADER_BYTES):
      raise _damaged(path, f"{size:,} bytes, header of {length:,}")
    raw = file.read(length)
  try:
    content = json.loads(raw)
    metadata = content.pop("__metadata__", {})
    slots = {name: _slot(row, 8 + length) for name, row in content.items()}
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise _damaged(path, f"an unreadable header ({error})") from error
  end = max((s.start + s.nbytes for s in slots.values()), default=8 + length)
  if end != size:
    raise _damaged(path, f"{size:,} bytes, its tensors end at {end:,}")
  return SafetensorsHeader(path, slots, metadata)


def lazy_tensor(header: SafetensorsHeader, name: str) -> checkpoint.LazyTensor:
  """The tensor `name`, not read yet.

  Raises:
    CheckpointError: it is stored in a dtype that no weight has.
  """
  slot = header.slots[name]
  dtype = DTYPES.get(slot.code)
  if dtype is None:
    raise errors.CheckpointError(
      "A tensor has a dtype that cannot be read.",
      received=f"{header.path}: {name} is {slot.code}",
      instead=f"weights in {', '.join(DTYPES)}, not quantised ones",
    )
  read = functools.partial(_read, header.path, slot, dtype)
  return checkpoint.LazyTensor(slot.shape, dtype, read)


def write(
  file: BinaryIO,
  specs: Mapping[str, tuple[tuple[int, ...], np.dtype]],
  arrays: Iterable[np.ndarray],
  metadata: Mapping[str, str],
) -> None:
  """Streams a safetensors file, one array in memory at a time.

  Args:
    file: Opened for writing, at its start.
    specs: Name -> (shape, dtype), in the order of `arrays`.
    arrays: The tensors' values.
    metadata: String -> string, kept in the header.
  """
  file.write(header_bytes(specs, metadata))
  for array, (name, spec) in zip(arrays, specs.items(), strict=True):
    if (array.shape, array.dtype) != spec:
      raise AssertionError(f"{name}: {array.shape} {array.dtype}, not {spec}")
    file.write(raw_bytes(array))


def header_bytes(
  specs: Mapping[str, tuple[tuple[int, ...], np.dtype]],
  metadata: Mapping[str, str],
) -> bytes:
  """The length and header of a file, padded so that the data is aligned.

  Args:
    specs: Name -> (shape, dtype), in the order of the data.
    metadata: String -> string.

  Raises:
    CheckpointError: a dtype that weights do not have.
  """
  rows: dict[str, object] = {"__metadata__": dict(metadata)}
  start = 0
  for name, (shape, dtype) in specs.items():
    if dtype not in _CODES:
      raise errors.CheckpointError(
        "A tensor has a dtype that cannot be written.",
        received=f"{name} is {dtype}",
        instead="float32, float16 or bfloat16",
      )
    end = start + math.prod(shape) * dtype.itemsize
    rows[name] = {
      "dtype": _CODES[dtype],
      "shape": list(shape),
      "data_offsets": [start, end],
    }
    start = end
  text = json.dumps(rows, separators=(",", ":")).encode()
  text += b" " * (-(8 + len(text)) % _ALIGNMENT)
  return len(text).to_bytes(8, "little") + text


def raw_bytes(array: np.ndarray) -> memoryview:
  """The array's bytes in C order; a copy only where it is not contiguous."""
  return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _slot(row: Mapping, data_start: int) -> Slot:
  begin, end = row["data_offsets"]
  slot = Slot(
    row["dtype"], tuple(row["shape"]), data_start + begin, end - begin
  )
  dtype = DTYPES.get(slot.code)
  if begin < 0 or slot.nbytes < 0:
    raise ValueError(f"offsets {begin}, {end}")
  if dtype and math.prod(slot.shape) * dtype.itemsize != slot.nbytes:
    raise ValueError(f"{slot.nbytes} bytes for {slot.code} {slot.shape}")
  return slot


def _read(path: str, slot: Slot, dtype: np.dtype) -> np.ndarray:
  if not slot.nbytes:
    return np.empty(slot.shape, dtype)
  data = np.memmap(path, np.uint8, "r", slot.start, (slot.nbytes,))
  return data.view(dtype).reshape(slot.shape)


def _damaged(path: str, found: str) -> errors.CheckpointError:
  return errors.CheckpointError(
    "The safetensors file is cut off or corrupt.",
    received=f"{path}: {found}",
    instead="download the file again; a partial download looks like this",
  )
