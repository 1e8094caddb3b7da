"""What a capture keeps, against single prompts; and how it goes on."""

import dataclasses
import errno
import os

import numpy as np
import pytest

import gemma_scope as gs
from gemma_scope.activations.store import (
  Store,
  StoreError,
  capture_to_store,
  open_writer,
  shards,
  verify,
)
from gemma_scope.surgery.positions import BOS
from tests.activations.store.synthetic import contents
from tests.activations.store.tiny_capture import (
  PACKING,
  SHARD_ROWS,
  SITES,
  capture,
  documents,
  make,
)


@pytest.fixture(scope="module")
def parts():
  """Harvest and pipeline; tests rewind the pipeline."""
  return make()


@pytest.fixture
def rewound(parts):
  harvest, pipeline = parts
  pipeline.restore(pipeline.state() | {"chunk": 0, "row": 0, "batches": 0})
  return harvest, pipeline


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  """A store of all the text."""
  path = tmp_path_factory.mktemp("whole")
  capture(path, make(), commit_seconds=1000.0)
  return path


def test_every_token_of_the_text_is_there_once(whole, tiny_lm):
  store = Store.open(whole)
  assert verify(whole).rows == store.num_rows
  tokens = store.tokens(np.arange(store.num_rows))
  places = list(zip(tokens.document.tolist(), tokens.offset.tolist()))
  assert len(set(places)) == len(places)
  found = {place: int(i) for place, i in zip(places, tokens.id)}
  for number, text in enumerate(documents()):
    ids = [i for i in tiny_lm.tokenizer.encode(text) if i != BOS]
    assert [found.pop((number, k)) for k in range(len(ids))] == ids
  assert not found


def test_rows_are_those_of_the_prompt_alone(whole, parts):
  """Pieces of documents, each alone in a row, in float32."""
  store, lm = Store.open(whole), parts[0].lm
  tokens = store.tokens(np.arange(store.num_rows))
  place = np.stack([tokens.sequence, tokens.segment], 1)
  pieces = np.unique(place, axis=0)[[0, 7, 40, -1]]
  members = [np.flatnonzero((place == p).all(axis=1)) for p in pieces]
  ids = np.zeros((4, PACKING.seq_len), np.int32)
  for row, rows in zip(ids, members):
    row[: 1 + len(rows)] = [BOS, *tokens.id[rows]]
  alone = gs.capture(lm, ids, SITES, segment_ids=(ids != 0).astype(int))
  for site, named in alone.items():
    values = np.asarray(named.unwrap(*named.named_axes))
    for value, rows in zip(values, members):
      expected = value[1 : 1 + len(rows)].reshape(len(rows), -1)
      found = store.rows(site, rows).astype(np.float32)
      scale = np.abs(expected).max()
      np.testing.assert_allclose(found, expected, rtol=2**-8, atol=1e-5 * scale)
  for rows in members:
    context = store.context(int(rows[0]), before=5, after=200)
    np.testing.assert_array_equal(context, rows)


@pytest.mark.parametrize("stops", [(1, 500, 900), (301,), (700, 700)])
def test_going_on_gives_the_same_files(whole, rewound, tmp_path, stops):
  pipeline = rewound[1]
  for rows in (*stops, None):
    capture(tmp_path, rewound, rows)
    next(pipeline, None)  # wherever it stands
    assert Store.open(tmp_path).num_rows >= (rows or 0)
  assert contents(tmp_path) == contents(whole)


def test_it_stops_behind_the_batch_that_brings_enough(rewound, tmp_path):
  told = []
  capture(tmp_path, rewound, 200, progress=told.append)
  assert told[-2] < 200 <= told[-1] == Store.open(tmp_path).num_rows
  capture(tmp_path, rewound, 150)
  assert Store.open(tmp_path).num_rows == told[-1]


def test_the_end_of_the_text_is_remembered(whole, rewound, tmp_path):
  with open_writer(whole, *rewound, shard_rows=SHARD_ROWS) as writer:
    assert writer.committed.finished
  capture(tmp_path, rewound, 100)
  with open_writer(tmp_path, *rewound, shard_rows=SHARD_ROWS) as writer:
    assert not writer.committed.finished


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_interrupt_commits_what_is_written(rewound, tmp_path, whole, error):
  harvest, pipeline = rewound
  left = [4]

  class Stopping:
    state, restore = pipeline.state, pipeline.restore

    def __next__(self):
      left[0] -= 1
      if left[0] < 0:
        raise error
      return next(pipeline)

  writer = open_writer(tmp_path, harvest, pipeline, shard_rows=SHARD_ROWS)
  with writer, pytest.raises(error):
    capture_to_store(harvest, Stopping(), writer, commit_seconds=1000.0)
  with open_writer(tmp_path, *rewound, shard_rows=SHARD_ROWS) as writer:
    assert writer.batches == 4
  capture(tmp_path, rewound)
  assert contents(tmp_path) == contents(whole)


@pytest.mark.parametrize("write_number", [0, 9, 30, 200])
def test_a_disk_that_fills_up(
  rewound, tmp_path, whole, monkeypatch, write_number
):
  real, seen = shards._write, []

  def fail(file, data):
    seen.append(1)
    if len(seen) > write_number:
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    real(file, data)

  monkeypatch.setattr(shards, "_write", fail)
  with pytest.raises(StoreError, match="disk is full"):
    capture(tmp_path, rewound)
  verify(tmp_path)
  monkeypatch.undo()
  capture(tmp_path, rewound)
  assert contents(tmp_path) == contents(whole)


def test_other_text_or_options_are_refused(whole, parts):
  harvest, pipeline = parts
  packing = dataclasses.replace(PACKING, seq_len=25)
  other = make(harvest.lm, packing=packing)
  with pytest.raises(StoreError, match=r"packing.seq_len was 24, is 25"):
    open_writer(whole, *other, shard_rows=SHARD_ROWS)
  edited = {"edits": ["ablated"]}
  with pytest.raises(StoreError, match=r"about.edits was None"):
    open_writer(whole, *parts, shard_rows=SHARD_ROWS, about=edited)
  more = dataclasses.replace(PACKING, epochs=2)
  longer = make(harvest.lm, packing=more)
  open_writer(whole, *longer, shard_rows=SHARD_ROWS).close()
  assert pipeline.options.epochs == 1


def test_a_batch_that_does_not_go_well_is_told(rewound, tmp_path, monkeypatch):
  """An error in the writing thread reaches the caller, not a log."""
  from gemma_scope.activations.store import appender

  def fail(*_):
    raise ZeroDivisionError("in the thread")

  monkeypatch.setattr(appender, "_new_rows", fail)
  with pytest.raises(ZeroDivisionError, match="in the thread"):
    capture(tmp_path, rewound)
  assert Store.open(tmp_path).num_rows == 0
