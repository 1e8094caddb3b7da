"""Tensors of a dictionary's files: mapped, and checked against a pattern.

Dictionaries store indices and int8 rows beside floating-point weights, so that
more dtypes are read here than `weights.safetensors_file` allows a checkpoint.
"""

from collections.abc import Mapping
import math
import os
import pathlib
from typing import Any

import numpy as np
import safetensors.numpy

from gemma_scope.errors import CheckpointError
from gemma_scope.weights import folders, safetensors_file

Tensors = Mapping[str, np.ndarray]
Pattern = Mapping[str, tuple[str | int, ...]]

_INTEGERS = {
  "F64": np.float64,
  "I8": np.int8,
  "U8": np.uint8,
  "I16": np.int16,
  "U16": np.uint16,
  "I32": np.int32,
  "U32": np.uint32,
  "I64": np.int64,
  "U64": np.uint64,
  "BOOL": np.bool_,
}
_DTYPES = {k: np.dtype(v) for k, v in _INTEGERS.items()}
_DTYPES |= safetensors_file.DTYPES


def read_tensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """Every tensor of a safetensors file, mapped: nothing is read yet.

  Args:
    path: A local file.

  Raises:
    CheckpointError: It is missing, cut off, corrupt, or no safetensors file.
  """
  path = os.fspath(path)
  try:
    header = safetensors_file.read_header(path)
  except OSError as error:
    raise CheckpointError(
      "A file of the dictionary cannot be read.",
      received=f"{path}: {error.strerror or error}",
      instead="the whole folder; download the missing file",
    ) from error
  return {n: _mapped(path, n, slot) for n, slot in header.slots.items()}


def _mapped(path: str, name: str, slot: safetensors_file.Slot) -> np.ndarray:
  dtype = _DTYPES.get(slot.code)
  if dtype is None or math.prod(slot.shape) * dtype.itemsize != slot.nbytes:
    raise CheckpointError(
      "A tensor of the dictionary cannot be read.",
      received=f"{path}: {name} is {slot.code} {slot.shape}, {slot.nbytes:,} "
      "bytes",
      instead=f"tensors in {', '.join(_DTYPES)}",
    )
  if not slot.nbytes:
    return np.empty(slot.shape, dtype)
  data = np.memmap(path, np.uint8, "r", slot.start, (slot.nbytes,))
  return data.view(dtype).reshape(slot.shape)


def write_tensors(path: str | os.PathLike, tensors: Mapping[str, Any]) -> None:
  """Writes a safetensors file, whole or not at all.

  Floating-point tensors are streamed, one in memory at a time.

  Args:
    path: The file.
    tensors: Name -> array (NumPy or JAX).
  """
  floats = set(safetensors_file.DTYPES.values())
  with folders.new_file(path) as file:
    if all(np.dtype(t.dtype) in floats for t in tensors.values()):
      specs = {n: (t.shape, np.dtype(t.dtype)) for n, t in tensors.items()}
      arrays = (np.asarray(t) for t in tensors.values())
      safetensors_file.write(file, specs, arrays, {})
    else:
      named = {n: np.ascontiguousarray(t) for n, t in tensors.items()}
      file.write(safetensors.numpy.save(named))


def check_shapes(
  tensors: Tensors, pattern: Pattern, source: str | os.PathLike
) -> dict[str, int]:
  """Compares shapes with a pattern such as {"w_enc": ("d", "m")}.

  Args:
    tensors: What the file holds; names that are not in the pattern are not
      looked at.
    pattern: Name -> axes: a letter stands for one size wherever it occurs.
    source: For the error.

  Returns:
    Letter -> size.

  Raises:
    CheckpointError: A tensor is missing, of another rank or size, or not of
      floating-point numbers.
  """
  missing = [name for name in pattern if name not in tensors]
  if missing:
    raise CheckpointError(
      "The file lacks tensors of the dictionary.",
      received=f"{source}: no {', '.join(missing)} among "
      f"{', '.join(sorted(tensors)) or 'nothing'}",
      instead=f"a file with {', '.join(pattern)}",
    )
  sizes: dict[str, int] = {}
  for name, names in pattern.items():
    shape, dtype = tensors[name].shape, tensors[name].dtype
    fits = len(shape) == len(names) and dtype in _floats()
    for letter, size in zip(names, shape):
      known = letter if isinstance(letter, int) else sizes.get(letter, size)
      fits = fits and size == known and size > 0
      if isinstance(letter, str):
        sizes.setdefault(letter, size)
    if not fits:
      raise _misfit(name, tensors[name], names, sizes, source)
  return sizes


def weight_file(folder: str | os.PathLike, *names: str) -> pathlib.Path | None:
  """The first of the named files that a folder holds, or None."""
  paths = [pathlib.Path(folder) / name for name in names]
  return next((path for path in paths if path.is_file()), None)


def _floats() -> list[np.dtype]:
  return [*safetensors_file.DTYPES.values(), np.dtype(np.float64)]


def _misfit(
  name: str,
  tensor: np.ndarray,
  names: tuple[str | int, ...],
  sizes: Mapping[str, int],
  source: str | os.PathLike,
) -> CheckpointError:
  wanted = [
    f"{n}={sizes[n]}" if isinstance(n, str) and n in sizes else str(n)
    for n in names
  ]
  return CheckpointError(
    "A tensor of the dictionary does not fit to the others.",
    received=f"{source}: {name} is {tensor.dtype} {tensor.shape}",
    instead=f"floating-point numbers of shape ({', '.join(wanted)})",
  )
