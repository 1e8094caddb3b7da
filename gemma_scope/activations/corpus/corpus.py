"""A corpus: documents of files of several kinds, one after the other.

Kinds go by the file's name: JSON lines (.jsonl, .ndjson, .json), Parquet
(.parquet), token arrays (.npy, .npz), folders of tokens (`token_folder`) and of
Hugging Face datasets, and text for all others. Nothing is decompressed.
"""

from collections.abc import Mapping, Sequence
import functools
import hashlib
import itertools
import json
import os
import pathlib
from typing import Any

import numpy as np

from gemma_scope.activations.corpus import tables, token_folder
from gemma_scope.activations.corpus.documents import (
  Document,
  Documents,
  InMemory,
)
from gemma_scope.activations.corpus.jsonl import open_jsonl
from gemma_scope.activations.corpus.spans import open_text
from gemma_scope.activations.corpus.token_arrays import TokenDocuments
from gemma_scope.errors import TextError

SAMPLED = 32  # documents
CHARACTERS = 4  # of a token, roughly

Path = str | os.PathLike[str]

_JSON_LINES = (".jsonl", ".ndjson", ".json")
_ARRAYS = (".npy", ".npz")
_TEXTS = (".txt", ".md")
_IN_FOLDERS = (*_JSON_LINES, ".parquet", *_ARRAYS, *_TEXTS)
_COMPRESSED = {".gz": "gunzip", ".zst": "unzstd", ".bz2": "bunzip2"}


class Corpus:
  """Documents by index, whatever they come from.

  Attributes:
    parts: The sources, in order.
  """

  def __init__(self, parts: Sequence[Documents]):
    """Puts sources one after the other.

    Raises:
      TextError: If there is no document.
    """
    self.parts = tuple(parts)
    self._ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
    if not len(self):
      raise TextError(
        "The corpus has no documents.",
        received=f"{len(parts)} sources: {[dict(p.origin) for p in parts]}",
        instead="a file with some text in it",
      )

  @classmethod
  def open(
    cls, given: Path | Sequence[Path], *, key: str = "text", unit: str = "file"
  ) -> "Corpus":
    """Opens files and folders.

    Args:
      given: One or several; of a folder all files of known kinds, sorted by
        name, those in folders below included.
      key: Where JSON lines, Parquet and datasets have the text.
      unit: What a document of a text file is: "file", "block" (between blank
        lines) or "line".

    Raises:
      TextError: If there is no such file, or it cannot be read as its name
        says.
      ConfigError: If a package is needed that is not installed.
    """
    paths = [given] if isinstance(given, str | os.PathLike) else list(given)
    files = [f for path in paths for f in _files(pathlib.Path(path))]
    return cls([_open(file, key, unit) for file in files])

  @classmethod
  def of(cls, documents: Any, *, key: str = "text") -> "Corpus":
    """Takes documents that are open or in memory.

    Args:
      documents: Texts, rows of token ids, a mix of both, or a split of a
        Hugging Face dataset.
      key: The column of a dataset that has the text.

    Raises:
      TextError: If they are something else.
    """
    if hasattr(documents, "column_names"):
      return cls([tables.DatasetTexts(documents, key)])
    return cls([InMemory(documents)])

  def __len__(self) -> int:
    return int(self._ends[-1]) if len(self._ends) else 0

  def __getitem__(self, index: int, /) -> Document:
    if not 0 <= index < len(self):
      raise IndexError(index)
    part = int(np.searchsorted(self._ends, index, side="right"))
    first = int(self._ends[part - 1]) if part else 0
    return self.parts[part][index - first]

  @property
  def origin(self) -> dict[str, Any]:
    """Where the documents come from, for manifests."""
    parts = [dict(part.origin) for part in self.parts]
    return {"documents": len(self), "sources": parts}

  @functools.cached_property
  def mean_tokens(self) -> float:
    """About how many tokens a document has, from a few evenly spaced ones."""
    some = np.linspace(0, len(self) - 1, min(SAMPLED, len(self))).astype(int)
    documents = [self[i] for i in some.tolist()]
    sizes = [
      len(d) / CHARACTERS if isinstance(d, str) else len(d) for d in documents
    ]
    return sum(sizes) / len(sizes)

  @functools.cached_property
  def digest(self) -> str:
    """sha256 of `origin`: tells another corpus from this one."""
    return digest_of(self.origin)


def digest_of(value: Mapping[str, Any]) -> str:
  """sha256 of JSON values."""
  return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _files(path: pathlib.Path) -> list[pathlib.Path]:
  """The file, or what a folder holds."""
  if not path.exists():
    raise TextError(
      "There is no such file or folder.",
      received=str(path),
      instead="the path of text, JSON lines, Parquet, token arrays, or a "
      "folder of them",
    )
  whole = token_folder.is_token_folder(path) or tables.is_dataset_folder(path)
  if path.is_file() or whole:
    return [path]
  found = sorted(p for p in path.rglob("*") if p.suffix in _IN_FOLDERS)
  hidden = (p.relative_to(path).parts for p in found)
  shown = [not any(name.startswith(".") for name in parts) for parts in hidden]
  found = [p for p in itertools.compress(found, shown) if p.is_file()]
  if not found:
    raise TextError(
      "The folder has no file of a known kind.",
      received=str(path),
      instead=f"files that end in {', '.join(_IN_FOLDERS)}; name others",
    )
  return found


def _open(path: pathlib.Path, key: str, unit: str) -> Documents:
  if path.is_dir():
    if token_folder.is_token_folder(path):
      return token_folder.TokenFolder(path)
    return tables.open_dataset(path, key)
  if path.suffix in _COMPRESSED:
    raise TextError(
      "Compressed files cannot be read at random places.",
      received=str(path),
      instead=f"{_COMPRESSED[path.suffix]} {path.name}, then the file it gives",
    )
  if path.suffix in _JSON_LINES:
    return open_jsonl(path, key)
  if path.suffix == ".parquet":
    return tables.ParquetTexts(path, key)
  if path.suffix in _ARRAYS:
    return TokenDocuments(path)
  return open_text(path, unit)
