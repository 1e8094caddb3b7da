"""Token arrays as documents: ids that were made before, read by memory map.

Rows [documents, seq] of a 2-D array are documents, with padding 0 behind their
end. A flat array is cut at `ends`, or, where there are none, before every BOS.
Arrays of `.npy` are mapped, those of `.npz` are read into memory.
"""

from collections.abc import Mapping
import functools
import os
import pathlib
from typing import Any

import numpy as np

from gemma_scope.activations.corpus.options import PAD
from gemma_scope.errors import TextError
from gemma_scope.surgery.positions import BOS

_SCANNED_AT_ONCE = 1 << 24


class TokenDocuments:
  """Documents that are stretches of a flat array of ids.

  Attributes:
    path: The file; raw little-endian numbers, `.npy` or `.npz`.
    ends: [documents] int64, the place behind each document's last token.
  """

  def __init__(
    self,
    path: str | os.PathLike[str],
    ends: np.ndarray | None = None,
    *,
    raw: str | None = None,
  ):
    """Maps the file.

    Args:
      path: The file.
      ends: Place behind each document's last token; by default the `.npz`
        file's array `ends`, and otherwise documents end before every BOS.
      raw: Dtype of a raw file, such as "<u4".

    Raises:
      TextError: If it holds no whole numbers, or `ends` do not fit.
    """
    self.path = pathlib.Path(path)
    self._raw = raw
    ids = self._ids
    if ids.ndim not in (1, 2) or not np.issubdtype(ids.dtype, np.integer):
      raise TextError(
        "Token arrays hold whole numbers, flat or as rows.",
        received=f"{self.path}: {ids.dtype}{list(ids.shape)}",
        instead="an integer array of shape [tokens] or [documents, seq]",
      )
    found = self._ends(ends)
    wrong = np.diff(found, prepend=0).min(initial=0) < 0
    if wrong or (len(found) and found[-1] > ids.size):
      raise TextError(
        "The ends of the documents do not fit the tokens.",
        received=f"{self.path}: {ids.size:,} tokens; ends {found!r:.80}",
        instead="rising places, the last of them at most the number of tokens",
      )
    self.ends = found

  def __len__(self) -> int:
    return len(self.ends)

  def __getitem__(self, index: int, /) -> np.ndarray:
    stop = int(self.ends[index])
    if self._ids.ndim == 2:
      row = self._ids[stop // self._ids.shape[1] - 1]
      return _without_padding(row).astype(np.int32)
    start = int(self.ends[index - 1]) if index else 0
    return np.asarray(self._ids[start:stop]).astype(np.int32)

  @property
  def num_tokens(self) -> int:
    """Ids in all documents; padding of rows is counted, too."""
    return int(self.ends[-1]) if len(self) else 0

  @property
  def origin(self) -> Mapping[str, Any]:
    """The file's name, and how many ids it holds."""
    return {
      "kind": "token array",
      "name": self.path.name,
      "dtype": str(self._ids.dtype),
      "tokens": self.num_tokens,
      "documents": len(self),
    }

  def __getstate__(self) -> dict[str, Any]:
    return {k: v for k, v in self.__dict__.items() if k != "_ids"}

  @functools.cached_property
  def _ids(self) -> np.ndarray:
    if self._raw is not None:
      if not self.path.stat().st_size:
        return np.zeros(0, self._raw)
      return np.memmap(self.path, self._raw, mode="r")
    loaded = np.load(self.path, mmap_mode="r", allow_pickle=False)
    return _named(loaded, self.path, "tokens", "ids")

  def _ends(self, given: np.ndarray | None) -> np.ndarray:
    ids = self._ids
    if ids.ndim == 2:
      return np.arange(1, len(ids) + 1, dtype=np.int64) * ids.shape[1]
    if given is None and self.path.suffix == ".npz":
      with np.load(self.path, allow_pickle=False) as file:
        given = file.get("ends")
    if given is None:
      starts = _places_of(ids, BOS)
      given = np.append(starts[starts > 0], [ids.size] if ids.size else [])
    return np.asarray(given).astype(np.int64)


def _named(loaded: Any, path: pathlib.Path, *names: str) -> np.ndarray:
  """The array of a `.npy` file, or the one of these names in a `.npz`."""
  if isinstance(loaded, np.ndarray):
    return loaded
  with loaded:
    for name in names:
      if name in loaded:
        return loaded[name]
    raise TextError(
      "The file has no array of token ids.",
      received=f"{path} with {', '.join(loaded)}",
      instead="np.savez(path, tokens=ids, ends=ends)",
    )


def _places_of(ids: np.ndarray, token: int) -> np.ndarray:
  parts = [np.zeros(0, np.int64)]
  for start in range(0, ids.size, _SCANNED_AT_ONCE):
    here = np.asarray(ids[start : start + _SCANNED_AT_ONCE]) == token
    parts.append(np.flatnonzero(here) + start)
  return np.concatenate(parts)


def _without_padding(row: np.ndarray) -> np.ndarray:
  there = np.flatnonzero(np.asarray(row) != PAD)
  return np.asarray(row[: there[-1] + 1 if len(there) else 0])
