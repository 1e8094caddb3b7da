"""A corpus of many kinds of files is one sequence of documents."""

import json
import pickle

import numpy as np
import pytest

from gemma_scope import testing
from gemma_scope.activations.corpus.corpus import Corpus
from gemma_scope.activations.corpus.token_writer import corpus_to_tokens
from gemma_scope.errors import TextError


@pytest.fixture
def folder(tmp_path):
  (tmp_path / "b").mkdir()
  (tmp_path / ".hidden").mkdir()
  (tmp_path / "a.txt").write_text("One.\n\nTwo.\n")
  lines = [json.dumps({"text": t, "body": t.upper()}) for t in ("x", "y")]
  (tmp_path / "b" / "c.jsonl").write_text("\n".join(lines))
  np.save(tmp_path / "d.npy", np.asarray([[2, 300], [2, 301]]))
  (tmp_path / ".hidden" / "e.txt").write_text("not this")
  (tmp_path / "f.pdf").write_text("nor this")
  return tmp_path


def plain(corpus):
  documents = [corpus[i] for i in range(len(corpus))]
  return [d if isinstance(d, str) else d.tolist() for d in documents]


def test_a_folder_gives_all_its_documents_in_order(folder):
  corpus = Corpus.open(folder)
  expected = ["One.\n\nTwo.\n", "x", "y", [2, 300], [2, 301]]
  assert plain(corpus) == expected
  assert plain(pickle.loads(pickle.dumps(corpus))) == expected
  by_block = Corpus.open([folder / "b", folder / "a.txt"], unit="block")
  assert plain(by_block) == ["x", "y", "One.", "Two."]
  named = Corpus.open(str(folder / "b" / "c.jsonl"), key="body")
  assert plain(named) == ["X", "Y"]
  assert plain(Corpus.open(folder / "f.pdf")) == ["nor this"]
  with pytest.raises(IndexError):
    corpus[5]


def test_kinds_of_folders_and_files_go_by_their_name(folder, tmp_path):
  arrow = pytest.importorskip("pyarrow")
  from pyarrow import parquet

  parquet.write_table(arrow.table({"text": ["p", "q"]}), folder / "z.parquet")
  assert plain(Corpus.open(folder))[-2:] == ["p", "q"]
  made = corpus_to_tokens(
    Corpus.of(["ab", "c"]), testing.tiny_lm().tokenizer, tmp_path / "tokens"
  )
  assert plain(Corpus.open(tmp_path / "tokens")) == plain(made)


def test_documents_in_memory():
  assert plain(Corpus.of(["a", [2, 5]])) == ["a", [2, 5]]

  class Split(list):
    column_names = ["text"]  # noqa: RUF012

  split = Split([{"text": "a"}, {"text": "b"}])
  assert plain(Corpus.of(split)) == ["a", "b"]


def test_mean_tokens_is_an_estimate():
  assert Corpus.of(["abcd" * 10, [5] * 30]).mean_tokens == 20
  many = Corpus.of([[5] * (i % 100) for i in range(5000)])
  assert 30 < many.mean_tokens < 70


def test_the_digest_tells_corpora_apart(folder):
  digests = {
    Corpus.open(folder).digest,
    Corpus.open(folder, unit="line").digest,
    Corpus.open(folder / "b").digest,
    Corpus.open(folder / "b", key="body").digest,
  }
  assert len(digests) == 4
  assert Corpus.open(folder).digest == Corpus.open(folder).digest
  assert Corpus.open(folder).origin["documents"] == 5


def test_what_cannot_be_opened_is_refused(tmp_path):
  with pytest.raises(TextError, match=r"no such file[\s\S]*nothing\.txt"):
    Corpus.open(tmp_path / "nothing.txt")
  with pytest.raises(TextError, match=r"no file of a known kind[\s\S]*\.jsonl"):
    Corpus.open(tmp_path)
  (tmp_path / "a.jsonl.gz").write_bytes(b"")
  with pytest.raises(TextError, match=r"gunzip a\.jsonl\.gz"):
    Corpus.open(tmp_path / "a.jsonl.gz")
  (tmp_path / "a.txt").write_text("")
  with pytest.raises(TextError, match=r"no documents[\s\S]*a\.txt"):
    Corpus.open(tmp_path / "a.txt")
