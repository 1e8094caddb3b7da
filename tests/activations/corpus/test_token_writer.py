"""Writing tokens: cut off at any place, the folder is the same in the end."""

import numpy as np
import pytest

from gemma_scope import testing
from gemma_scope.activations.corpus import token_writer
from gemma_scope.activations.corpus.corpus import Corpus
from gemma_scope.activations.corpus.token_writer import corpus_to_tokens
from gemma_scope.errors import ConfigError, TextError

RNG = np.random.default_rng(0)
WORDS = ["the", "capital", "of", "France", "is", "Paris", "Rome", "and", "Mary"]
TEXTS = [" ".join(RNG.choice(WORDS, n)) for n in RNG.integers(0, 40, 30)]
FILES = ("tokens.bin", "ends.bin")


@pytest.fixture(scope="module")
def tokenizer():
  return testing.tiny_lm().tokenizer


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
  monkeypatch.setattr(token_writer, "CHUNK", 4)


class Killed(BaseException):
  pass


def killer(after):
  """Ends the run when so many documents are written."""

  def progress(documents, of, tokens):
    assert of == len(TEXTS)
    if documents >= after:
      raise Killed

  return progress


def contents(folder):
  return [(folder / name).read_bytes() for name in FILES]


@pytest.fixture(scope="module")
def whole(tokenizer, tmp_path_factory):
  folder = tmp_path_factory.mktemp("whole") / "tokens"
  corpus_to_tokens(Corpus.of(TEXTS), tokenizer, folder)
  return contents(folder)


@pytest.mark.parametrize("after", [1, 13, 30])
@pytest.mark.parametrize("torn", [False, True])
def test_a_run_cut_off_goes_on(tokenizer, tmp_path, whole, after, torn):
  folder, corpus = tmp_path / "tokens", Corpus.of(TEXTS)
  with pytest.raises(Killed):
    corpus_to_tokens(corpus, tokenizer, folder, progress=killer(after))
  assert not folder.exists()
  partial = tmp_path / ".tokens.partial"
  if torn:  # a write stopped midway
    for name, size in zip(FILES, (6, 3)):
      path = partial / name
      path.write_bytes(path.read_bytes()[:-size] if after > 1 else b"abc")
  seen = []
  done = lambda documents, _, tokens: seen.append(documents)  # noqa: E731
  found = corpus_to_tokens(corpus, tokenizer, folder, progress=done)
  assert contents(folder) == whole
  assert sorted(p.name for p in folder.iterdir()) == sorted(
    [*FILES, "manifest.json"]
  )
  assert not partial.exists()
  assert len(found) == len(TEXTS)
  if after == 13 and not torn:
    assert seen[0] > 13  # what was there was not done again


def test_what_is_there_is_opened(tokenizer, tmp_path):
  folder, corpus = tmp_path / "tokens", Corpus.of(TEXTS)
  corpus_to_tokens(corpus, tokenizer, folder)
  never = killer(0)
  found = corpus_to_tokens(corpus, tokenizer, folder, progress=never)
  assert len(found) == len(TEXTS)
  with pytest.raises(ConfigError, match="holds something else"):
    corpus_to_tokens(Corpus.of(["a"]), tokenizer, folder)
  (tmp_path / "other").mkdir()
  with pytest.raises(ConfigError, match="holds something else"):
    corpus_to_tokens(corpus, tokenizer, tmp_path / "other")


def test_the_rest_of_another_job_is_thrown_away(tokenizer, tmp_path, whole):
  folder = tmp_path / "tokens"
  with pytest.raises(Killed):
    corpus_to_tokens(
      Corpus.of(TEXTS[::-1]), tokenizer, folder, progress=killer(9)
    )
  corpus_to_tokens(Corpus.of(TEXTS), tokenizer, folder)
  assert contents(folder) == whole


def test_two_writers_are_one_too_many(tokenizer, tmp_path, whole):
  folder, corpus = tmp_path / "tokens", Corpus.of(TEXTS)

  def meanwhile(*_):
    with pytest.raises(ConfigError, match="Another process writes"):
      corpus_to_tokens(corpus, tokenizer, folder)

  corpus_to_tokens(corpus, tokenizer, folder, progress=meanwhile)
  assert contents(folder) == whole


def test_errors_in_documents_arrive(tokenizer, tmp_path):
  with pytest.raises(TextError, match="document 1: ids from 600"):
    corpus_to_tokens(Corpus.of(["a", [600]]), tokenizer, tmp_path / "tokens")


@pytest.mark.slow
def test_worker_processes_write_the_same(tokenizer, tmp_path, whole):
  folder = tmp_path / "tokens"
  corpus_to_tokens(Corpus.of(TEXTS), tokenizer, folder, workers=2)
  assert contents(folder) == whole
