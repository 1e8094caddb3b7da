"""Parquet files and Hugging Face datasets as documents.

Both packages are optional and imported when used. A dataset of `datasets` lies
in a memory map and is read at random places. A Parquet file is read by row
groups; the last ones used are kept, up to a budget of bytes, so that a file
within the budget is decoded once. Shuffling a larger one decodes a whole row
group for most documents: write its tokens first (`token_writer`, which reads in
order), and shuffle those.
"""

import collections
from collections.abc import Mapping
import importlib
import os
import pathlib
import threading
from types import ModuleType
from typing import Any

import numpy as np

from gemma_scope.errors import ConfigError, TextError

KEPT_BYTES = 1 << 28  # of decoded row groups, in each process


class ParquetTexts:
  """The texts of one column of a Parquet file.

  Attributes:
    path: The file.
    key: The column.
  """

  def __init__(self, path: str | os.PathLike[str], key: str = "text"):
    """Reads the file's footer.

    Raises:
      ConfigError: If pyarrow is not installed.
      TextError: If there is no such column of texts.
    """
    self.path, self.key = pathlib.Path(path), key
    file = self._file()
    kinds = {f.name: str(f.type) for f in file.schema_arrow}
    if kinds.get(key) not in ("string", "large_string", "string_view"):
      raise _no_column(str(self.path), key, kinds)
    meta = file.metadata
    sizes = [meta.row_group(i).num_rows for i in range(meta.num_row_groups)]
    self._ends = np.cumsum(sizes, dtype=np.int64)
    self._start_empty()

  def __len__(self) -> int:
    return int(self._ends[-1]) if len(self._ends) else 0

  def __getitem__(self, index: int, /) -> str:
    if not 0 <= index < len(self):
      raise IndexError(index)
    group = int(np.searchsorted(self._ends, index, side="right"))
    first = int(self._ends[group - 1]) if group else 0
    return self._group(group)[index - first].as_py() or ""

  @property
  def origin(self) -> Mapping[str, Any]:
    """The file's name and size, and the column."""
    return {
      "kind": "parquet",
      "name": self.path.name,
      "bytes": self.path.stat().st_size,
      "key": self.key,
      "documents": len(self),
    }

  def __getstate__(self) -> dict[str, Any]:
    left_out = ("_kept", "_lock")
    return {k: v for k, v in self.__dict__.items() if k not in left_out}

  def __setstate__(self, state: dict[str, Any]) -> None:
    self.__dict__.update(state)
    self._start_empty()

  def _start_empty(self) -> None:
    self._kept: collections.OrderedDict[int, Any] = collections.OrderedDict()
    self._lock = threading.Lock()

  def _group(self, group: int) -> Any:
    """One row group's column; the one used longest ago makes room for it."""
    with self._lock:
      if group not in self._kept:
        table = self._file().read_row_group(group, columns=[self.key])
        self._kept[group] = table.column(self.key)
      self._kept.move_to_end(group)
      while len(self._kept) > 1 and self._bytes() > KEPT_BYTES:
        self._kept.popitem(last=False)
      return self._kept[group]

  def _bytes(self) -> int:
    return sum(column.nbytes for column in self._kept.values())

  def _file(self) -> Any:
    parquet = _imported("pyarrow.parquet", "a Parquet file", "pyarrow")
    return parquet.ParquetFile(self.path)


class DatasetTexts:
  """The texts of one column of a Hugging Face dataset.

  Attributes:
    key: The column.
  """

  def __init__(self, dataset: Any, key: str = "text"):
    """Wraps a `datasets.Dataset`.

    Raises:
      TextError: If it is another object of `datasets`, or has no such column.
    """
    names = getattr(dataset, "column_names", None)
    if not isinstance(names, list) or not hasattr(dataset, "__len__"):
      raise TextError(
        "A corpus reads one split of a dataset, at any place.",
        received=f"a {type(dataset).__name__}",
        instead='one split that is not streamed: load_dataset(name, split="'
        'train"); or texts as JSONL',
      )
    if key not in names:
      raise _no_column(type(dataset).__name__, key, dict.fromkeys(names, "?"))
    self._dataset, self.key = dataset, key

  def __len__(self) -> int:
    return len(self._dataset)

  def __getitem__(self, index: int, /) -> str:
    if not 0 <= index < len(self):
      raise IndexError(index)
    found = self._dataset[index][self.key] or ""
    if not isinstance(found, str):
      raise _no_column("the dataset", self.key, {self.key: f"{found!r:.40}"})
    return found

  @property
  def origin(self) -> Mapping[str, Any]:
    """The dataset's fingerprint, and the column."""
    return {
      "kind": "dataset",
      "fingerprint": str(getattr(self._dataset, "_fingerprint", "")),
      "key": self.key,
      "documents": len(self),
    }


def open_dataset(
  path: str | os.PathLike[str], key: str = "text"
) -> DatasetTexts:
  """Opens a folder that `Dataset.save_to_disk` wrote.

  Raises:
    ConfigError: If `datasets` is not installed.
    TextError: If it holds several splits, or has no such column.
  """
  datasets = _imported("datasets", "a Hugging Face dataset", "datasets")
  return DatasetTexts(datasets.load_from_disk(os.fspath(path)), key)


def is_dataset_folder(path: pathlib.Path) -> bool:
  """Whether `save_to_disk` of `datasets` wrote this folder."""
  marks = ("state.json", "dataset_dict.json")
  return any((path / mark).is_file() for mark in marks)


def _imported(module: str, what: str, package: str) -> ModuleType:
  try:
    return importlib.import_module(module)
  except ImportError as error:
    raise ConfigError(
      f"Reading {what} needs a package that is not installed.",
      received=f"no {package}: {error}",
      instead=f"pip install {package}",
    ) from error


def _no_column(where: str, key: str, kinds: Mapping[str, str]) -> TextError:
  shown = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
  return TextError(
    f"There is no column {key!r} of texts.",
    received=f"{where} with {shown:.300}",
    instead='the name of the column of texts, such as key="content"',
  )
