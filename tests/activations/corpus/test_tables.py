"""Parquet by row groups, data sets by their interface, both optional."""

import pickle
import sys

import numpy as np
import pytest

from gemma_scope.activations.corpus import tables
from gemma_scope.activations.corpus.tables import DatasetTexts, ParquetTexts
from gemma_scope.errors import ConfigError, TextError

TEXTS = [f"Text number {i}, élan." for i in range(23)]


class Split:
  """What `datasets.Dataset` offers of itself here."""

  column_names = ("id", "text")
  _fingerprint = "abc"

  def __init__(self, texts=TEXTS):
    self.column_names = list(type(self).column_names)
    self.texts = texts

  def __len__(self):
    return len(self.texts)

  def __getitem__(self, index):
    return {"id": index, "text": self.texts[index]}


@pytest.fixture
def parquet(tmp_path):
  arrow = pytest.importorskip("pyarrow")
  from pyarrow import parquet

  table = arrow.table({"id": range(23), "text": TEXTS, "content": TEXTS[::-1]})
  parquet.write_table(table, tmp_path / "t.parquet", row_group_size=5)
  return tmp_path / "t.parquet"


def test_parquet_is_read_at_any_place(parquet):
  found = ParquetTexts(parquet)
  assert len(found) == 23
  for i in np.random.default_rng(0).permutation(23):
    assert found[int(i)] == TEXTS[i]
  again = pickle.loads(pickle.dumps(found))
  assert [again[i] for i in range(23)] == TEXTS
  assert ParquetTexts(parquet, "content")[0] == TEXTS[-1]
  with pytest.raises(IndexError):
    found[23]
  assert found.origin["documents"] == 23


def test_parquet_keeps_row_groups_within_a_budget(parquet, monkeypatch):
  found = ParquetTexts(parquet)
  assert [found[i] for i in range(23)] == TEXTS
  assert len(found._kept) == 5
  monkeypatch.setattr(tables, "KEPT_BYTES", 400)
  found = ParquetTexts(parquet)
  for i in range(23):
    assert found[i] == TEXTS[i]
    assert found._bytes() <= 400
  assert 1 < len(found._kept) < 5
  monkeypatch.setattr(tables, "KEPT_BYTES", 1)
  assert found[0] == TEXTS[0]
  assert len(found._kept) == 1


def test_missing_texts_are_empty(tmp_path):
  arrow = pytest.importorskip("pyarrow")
  from pyarrow import parquet

  parquet.write_table(
    arrow.table({"text": ["a", None]}), tmp_path / "t.parquet"
  )
  assert ParquetTexts(tmp_path / "t.parquet")[1] == ""


def test_columns_that_are_no_texts_are_refused(parquet):
  for key in ("id", "body"):
    with pytest.raises(TextError, match=rf"no column '{key}'[\s\S]*id \(int64"):
      ParquetTexts(parquet, key)
  with pytest.raises(TextError, match=r"no column 'body'[\s\S]*text"):
    DatasetTexts(Split(), "body")
  with pytest.raises(TextError, match=r"no column 'id'"):
    DatasetTexts(Split(), "id")[1]


def test_a_split_of_a_dataset_is_a_source():
  found = DatasetTexts(Split([*TEXTS, None]))
  assert [found[i] for i in range(24)] == [*TEXTS, ""]
  assert found.origin["fingerprint"] == "abc"
  with pytest.raises(IndexError):
    found[24]


def test_other_things_of_datasets_are_refused():
  splits = Split()
  splits.column_names = {"train": ["text"]}
  for other in (splits, object()):
    with pytest.raises(TextError, match="one split of a dataset"):
      DatasetTexts(other)


def test_missing_packages_are_named(parquet, monkeypatch):
  monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
  with pytest.raises(ConfigError, match="pip install pyarrow"):
    ParquetTexts(parquet)
  monkeypatch.setitem(sys.modules, "datasets", None)
  with pytest.raises(ConfigError, match="pip install datasets"):
    tables.open_dataset(parquet.parent)


def test_folders_of_datasets_are_known(tmp_path, monkeypatch):
  assert not tables.is_dataset_folder(tmp_path)
  (tmp_path / "state.json").write_text("{}")
  assert tables.is_dataset_folder(tmp_path)
  opened = type(sys)("datasets")
  opened.load_from_disk = lambda path: Split() if str(tmp_path) == path else 0
  monkeypatch.setitem(sys.modules, "datasets", opened)
  assert tables.open_dataset(tmp_path)[3] == TEXTS[3]
