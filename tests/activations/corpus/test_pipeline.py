"""The pipeline against packing in one go; resumed, shared, in processes."""

import itertools
import json

import numpy as np
import pytest

from gemma_scope import testing
from gemma_scope.activations.corpus import pipeline as pipeline_lib
from gemma_scope.activations.corpus.chunks import document_chunks
from gemma_scope.activations.corpus.corpus import Corpus
from gemma_scope.activations.corpus.options import PackingOptions
from gemma_scope.activations.corpus.packed_batch import PackedBatch
from gemma_scope.activations.corpus.packing import pack
from gemma_scope.activations.corpus.pipeline import TokenPipeline
from gemma_scope.errors import ConfigError, TextError

RNG = np.random.default_rng(0)
DOCUMENTS = [RNG.integers(108, 512, n) for n in RNG.integers(0, 60, 90)]
OPTIONS = PackingOptions(
  seq_len=32, batch_size=4, chunk_documents=16, seed=5, epochs=2, min_piece=4
)


@pytest.fixture(scope="module")
def tokenizer():
  return testing.tiny_lm().tokenizer


def pipeline(tokenizer, documents=DOCUMENTS, options=OPTIONS, **more):
  return TokenPipeline(Corpus.of(documents), tokenizer, options, **more)


def rows(options=OPTIONS, epochs=2):
  """All rows, chunk by chunk, without the pipeline."""
  chunks = document_chunks(
    len(DOCUMENTS), options.chunk_documents, seed=options.seed, epochs=epochs
  )
  packed = [
    pack([DOCUMENTS[i] for i in chunks[c]], options, chunks[c])
    for c in range(len(chunks))
  ]
  return PackedBatch.concatenate(packed)


def same(have, want):
  for name, array in want.arrays.items():
    np.testing.assert_array_equal(have.arrays[name], array, err_msg=name)
    assert have.arrays[name].dtype == array.dtype


def test_batches_are_the_rows_in_order(tokenizer):
  batches = list(pipeline(tokenizer))
  assert {batch.shape for batch in batches} == {(4, 32)}
  expected = rows()
  found = PackedBatch.concatenate(batches)
  size = len(expected.ids)
  same(found[:size], expected)
  assert len(found.ids) - size == -size % 4
  same(found[size:], PackedBatch.empty((-size % 4, 32)))


def test_every_token_comes_once_an_epoch(tokenizer):
  found = PackedBatch.concatenate(list(pipeline(tokenizer)))
  assert found.num_counted == 2 * sum(map(len, DOCUMENTS))
  pairs = np.stack([found.documents, found.offsets])[:, found.counted]
  unique, counts = np.unique(pairs, axis=1, return_counts=True)
  assert (counts == 2).all()
  documents = [DOCUMENTS[d][o] for d, o in unique.T]
  order = np.lexsort(pairs[::-1])
  np.testing.assert_array_equal(found.ids[found.counted][order][::2], documents)


@pytest.mark.parametrize("taken", [0, 1, 5, 23, 37, 1000])
def test_restored_it_goes_on_with_the_same_batches(tokenizer, taken):
  first = pipeline(tokenizer)
  list(itertools.islice(first, taken))
  state = json.loads(json.dumps(first.state()))
  expected = list(first)
  again = pipeline(tokenizer)
  next(again)  # it may have run before
  again.restore(state)
  found = list(again)
  assert len(found) == len(expected)
  for have, want in zip(found, expected):
    same(have, want)


def test_a_chunk_has_about_as_many_tokens(tokenizer, monkeypatch):
  monkeypatch.setattr(pipeline_lib, "CHUNK_TOKENS", 300)
  free = PackingOptions(**{**vars(OPTIONS), "chunk_documents": None})
  source = pipeline(tokenizer, options=free)
  assert 5 < source.chunk_documents < 20  # of 30 tokens
  fixed = PackingOptions(**{**vars(free), "chunk_documents": 7})
  assert pipeline(tokenizer, options=fixed).chunk_documents == 7
  assert pipeline(tokenizer, ["a"], free).chunk_documents == 1
  assert pipeline(tokenizer, [[5] * 999], free).chunk_documents == 1
  with pytest.raises(ConfigError, match="over something else"):
    pipeline(tokenizer, options=fixed).restore(source.state())


def test_endless_epochs_differ_and_cover_everything(tokenizer):
  endless = PackingOptions(**{**vars(OPTIONS), "epochs": None})
  source = pipeline(tokenizer, options=endless)
  two = rows()
  found = [next(source) for _ in range(len(two.ids) // 4 + 9)]
  assert source.epoch == 2
  assert source.fraction is None
  flat = PackedBatch.concatenate(found)
  same(flat[: len(two.ids)], two)
  source.restore(source.state())
  next(source)
  source.close()


def test_hosts_share_the_rows_of_one(tokenizer):
  alone = rows()
  pieces = [
    PackedBatch.concatenate(list(pipeline(tokenizer, host=host, num_hosts=3)))
    for host in range(3)
  ]
  full = [p.ids[p.segment_ids.any(axis=1)] for p in pieces]
  assert sum(map(len, full)) == len(alone.ids)
  shared = sorted(row.tolist() for part in full for row in part)
  assert shared == sorted(row.tolist() for row in alone.ids)


def test_fraction_and_epoch_follow(tokenizer):
  source = pipeline(tokenizer)
  seen = [(source.fraction, source.epoch) for _ in source]
  assert seen == sorted(seen)
  assert 0 < seen[0][0] < 0.1
  assert (source.fraction, source.epoch) == (1.0, 2)


@pytest.mark.parametrize(
  "change",
  [
    {"options": PackingOptions(seq_len=31)},
    {"documents": DOCUMENTS[1:]},
    {"host": 1, "num_hosts": 2},
  ],
)
def test_states_of_something_else_are_refused(tokenizer, change):
  state = pipeline(tokenizer).state()
  with pytest.raises(ConfigError, match="pipeline over something else"):
    pipeline(tokenizer, **change).restore(state)
  longer = PackingOptions(**{**vars(OPTIONS), "epochs": 9})
  pipeline(tokenizer, options=longer).restore(state)


def test_a_corpus_smaller_than_a_batch_is_one(tokenizer):
  options = PackingOptions(seq_len=32, batch_size=64)
  documents = [d for d in DOCUMENTS if len(d) > 20][:2]
  (batch,) = pipeline(tokenizer, documents, options)
  assert batch.num_counted == sum(map(len, documents))


def test_documents_without_tokens_are_refused(tokenizer):
  for epochs in (1, None):
    options = PackingOptions(chunk_documents=2, epochs=epochs)
    empty = pipeline(tokenizer, ["", "", ""], options)
    with pytest.raises(TextError, match=r"no tokens[\s\S]*3 empty documents"):
      next(empty)
  some = pipeline(tokenizer, ["", "", "", "a"], options)
  assert next(some).num_counted > 0


def test_errors_of_documents_arrive(tokenizer):
  with pytest.raises(TextError, match="document 0: ids from 600"):
    next(pipeline(tokenizer, [[600]]))


@pytest.mark.slow
def test_worker_processes_give_the_same_batches(tokenizer):
  expected = list(pipeline(tokenizer))
  source = pipeline(tokenizer, workers=2)
  found = list(itertools.islice(source, 9))
  assert type(source._rows.ids) is np.ndarray  # nothing in shared memory
  state = source.state()
  source.close()
  source = pipeline(tokenizer, workers=3)
  source.restore(state)
  found += list(source)
  assert len(found) == len(expected)
  for have, want in zip(found, expected):
    same(have, want)
  with pytest.raises(TextError, match="document 0: ids from 600"):
    next(pipeline(tokenizer, [[600]], workers=1))
