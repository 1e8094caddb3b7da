"""The cache of converted weights: unpacked once, mapped from then on.

One safetensors file of canonical tensors for each source file, under
`GEMMA_SCOPE_CACHE`, or `gemma_scope` in `XDG_CACHE_HOME` or ~/.cache. Its
metadata holds a manifest and a CRC-32 of every 32 MiB piece of every tensor,
and all of them are checked whenever the file is opened (CRC-32 runs at about
2 GB/s a core, and any burst of up to 32 flipped bits in a piece shows). A
damaged file counts as absent. A cache that cannot be written costs a warning,
never the result. Nothing here deletes: remove the folder to start anew.
"""

from collections.abc import Iterator, Mapping
from concurrent import futures
import datetime
import importlib.metadata
import json
import logging
import math
import os
import pathlib
import shutil
import zlib

import numpy as np

from gemma_scope.weights import checkpoint, folders, safetensors_file

_log = logging.getLogger(__name__)

# Part of every key: raised when the content for a given source changes.
_FORMAT = 1
_PIECE_BYTES = 32 << 20
_SPARE_BYTES = 64 << 20
_MANIFEST = "manifest"
_CHECKSUMS = "checksums"


def folder() -> pathlib.Path:
  """Where everything is cached; it need not exist."""
  if chosen := os.environ.get("GEMMA_SCOPE_CACHE"):
    return pathlib.Path(chosen).expanduser()
  home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
  return pathlib.Path(home).expanduser() / "gemma_scope"


def path_of(sha256: str) -> pathlib.Path:
  """The file that holds the conversion of the source with this hash."""
  name = f"{sha256[:32]}-v{_FORMAT}.safetensors"
  return folder() / "converted" / name


def load(sha256: str) -> dict[str, checkpoint.LazyTensor] | None:
  """The converted tensors of a source, mapped; None if absent or damaged.

  Args:
    sha256: Of the source file.
  """
  path = path_of(sha256)
  try:
    header = safetensors_file.read_header(path)
    if json.loads(header.metadata[_MANIFEST])["sha256"] != sha256:
      raise ValueError("another source")
    expected = json.loads(header.metadata[_CHECKSUMS])
    if _checksums(header) != expected:
      raise ValueError("a checksum differs")
    tensors = {
      name: safetensors_file.lazy_tensor(header, name) for name in header.slots
    }
    checkpoint.check_complete(tensors, str(path))
  except FileNotFoundError:
    return None
  except (OSError, ValueError, KeyError, TypeError) as error:
    _log.warning("Converted weights are damaged and made anew: %s", error)
    return None
  return tensors


def store(
  sha256: str, tensors: Mapping[str, checkpoint.LazyTensor], source: str
) -> bool:
  """Writes converted tensors, whole or not at all.

  Args:
    sha256: Of the source file.
    tensors: Canonical name -> tensor; read one at a time.
    source: What they were converted from, for the manifest.

  Returns:
    Whether they were written; if not, a warning said why.
  """
  path = path_of(sha256)
  specs = {name: (t.shape, t.dtype) for name, t in tensors.items()}
  needed = sum(math.prod(s) * d.itemsize for s, d in specs.values())
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(path.parent).free
    if free < needed + _SPARE_BYTES:
      raise OSError(f"{needed:,} bytes needed, {free:,} free")
    _log.info("Converting %s once, into %s", source, path)
    _write(path, specs, tensors, _manifest(sha256, source))
  except OSError as error:
    _log.warning("Converted weights are not cached in %s: %s", path, error)
    return False
  return True


def _manifest(sha256: str, source: str) -> str:
  try:
    version = importlib.metadata.version("gemma-scope")
  except importlib.metadata.PackageNotFoundError:
    version = "not installed"
  created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
  return json.dumps(
    {
      "source": source,
      "sha256": sha256,
      "gemma_scope": version,
      "format": _FORMAT,
      "created": created,
    }
  )


def _write(
  path: pathlib.Path,
  specs: Mapping[str, tuple[tuple[int, ...], np.dtype]],
  tensors: Mapping[str, checkpoint.LazyTensor],
  manifest: str,
) -> None:
  sums: dict[str, str] = {}
  blank = {
    name: "0" * 8 * len(_pieces(math.prod(shape) * dtype.itemsize))
    for name, (shape, dtype) in specs.items()
  }

  def arrays() -> Iterator[np.ndarray]:
    for name, tensor in tensors.items():
      array = np.ascontiguousarray(tensor.read())
      sums[name] = _sum(array)
      yield array

  with folders.new_file(path) as file:
    header = _metadata(manifest, blank)
    safetensors_file.write(file, specs, arrays(), header)
    # The sums are as long as the blanks were, so the data stays in place.
    file.seek(0)
    header = _metadata(manifest, sums)
    file.write(safetensors_file.header_bytes(specs, header))


def _metadata(manifest: str, sums: Mapping[str, str]) -> dict[str, str]:
  return {_MANIFEST: manifest, _CHECKSUMS: json.dumps(dict(sums))}


def _checksums(header: safetensors_file.SafetensorsHeader) -> dict[str, str]:
  """Recomputes the sums of a file, pieces in parallel."""
  jobs = [
    (name, slot, piece)
    for name, slot in header.slots.items()
    for piece in _pieces(slot.nbytes)
  ]

  def crc(job: tuple[str, safetensors_file.Slot, slice]) -> str:
    _, slot, piece = job
    start, length = slot.start + piece.start, piece.stop - piece.start
    # Mapped piece by piece, so that the whole file is never resident.
    data = np.memmap(header.path, np.uint8, "r", start, (length,))
    return _crc(data.data)

  with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    found = pool.map(crc, jobs)
  sums: dict[str, str] = dict.fromkeys(header.slots, "")
  for (name, _, _), value in zip(jobs, found, strict=True):
    sums[name] += value
  return sums


def _sum(array: np.ndarray) -> str:
  data = safetensors_file.raw_bytes(array)
  return "".join(_crc(data[piece]) for piece in _pieces(data.nbytes))


def _crc(data: memoryview) -> str:
  return f"{zlib.crc32(data):08x}"


def _pieces(nbytes: int) -> list[slice]:
  starts = range(0, nbytes, _PIECE_BYTES)
  return [slice(s, min(s + _PIECE_BYTES, nbytes)) for s in starts]
