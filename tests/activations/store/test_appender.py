"""The thread between the device and the disk."""

import threading

import jax.numpy as jnp
import numpy as np
import pytest

from gemma_scope.activations.corpus.packed_batch import PackedBatch
from gemma_scope.activations.store import Layout, Store, StoreWriter
from gemma_scope.activations.store.appender import Appender, Computed
from gemma_scope.sites import Site
from tests.activations.store.synthetic import manifest

SITE = Site("resid_post", 0)
LAYOUT = Layout({SITE: 3}, "float32", 100)


def computed(number: int, *, known: bool = True) -> Computed:
  """A batch of two rows of four columns; four of the eight count."""
  ids = np.arange(8, dtype=np.int32).reshape(2, 4) + 10 * number
  segments = np.array([[1, 1, 2, 2], [1, 1, 0, 0]], np.int32)
  counted = np.array([[0, 1, 1, 1], [0, 1, 0, 0]], bool)
  more = (ids + 100, ids + 200) if known else (None, None)
  batch = PackedBatch(ids, segments, counted, *more)
  values = jnp.asarray(ids.reshape(-1, 1) * jnp.array([[1.0, 2.0, 2.0]]))
  return Computed({SITE: values}, batch, {"after": number})


@pytest.fixture
def writer(tmp_path):
  with StoreWriter(tmp_path, LAYOUT, manifest()) as writer:
    yield writer


@pytest.mark.parametrize("known", [True, False])
def test_rows_and_where_they_come_from(writer, known):
  appender = Appender(writer, 0.0, None)
  appender.put(computed(0, known=known))
  appender.put(computed(1, known=known))
  appender.finish(finished=True)
  assert writer.committed.state == {"after": 1}
  assert writer.committed.finished
  store = Store.open(writer.path)
  ids = np.array([1, 2, 3, 5, 11, 12, 13, 15])
  tokens = store.tokens(np.arange(8))
  np.testing.assert_array_equal(tokens.id, ids)
  np.testing.assert_array_equal(tokens.sequence, [0, 0, 0, 1, 2, 2, 2, 3])
  np.testing.assert_array_equal(tokens.position, [1, 2, 3, 1] * 2)
  np.testing.assert_array_equal(tokens.segment, [1, 2, 2, 1] * 2)
  np.testing.assert_array_equal(tokens.document, ids + 100 if known else -1)
  np.testing.assert_array_equal(tokens.offset, ids + 200 if known else -1)
  found = store.rows(SITE, np.arange(8))
  np.testing.assert_array_equal(found, ids[:, None] * [1, 2, 2])
  # Norms are three times the id.
  assert store.statistics[SITE].mean_norm == 3 * ids.mean()
  assert store.statistics[SITE].mean_square_norm == 9 * (ids**2).mean()


def test_two_batches_wait_at_most(writer, monkeypatch):
  """With a disk that hangs, the fourth batch is not taken."""
  go_on, taken = threading.Event(), []
  real = StoreWriter.append

  def hang(self, new):
    go_on.wait()
    real(self, new)

  monkeypatch.setattr(StoreWriter, "append", hang)
  appender = Appender(writer, 1000.0, None)

  def feed():
    for number in range(4):
      appender.put(computed(number))
      taken.append(number)

  thread = threading.Thread(target=feed)
  thread.start()
  thread.join(0.5)
  before = list(taken)
  go_on.set()
  thread.join()
  assert before == [0, 1]
  appender.finish(finished=False)
  assert writer.committed.rows == 16


def test_commits_come_with_time(writer):
  appender = Appender(writer, 1000.0, None)
  appender.put(computed(0))
  appender.put(computed(1))
  appender.put(computed(2))
  appender.put(computed(3))  # so that the first one is written
  assert writer.committed.rows == 0
  appender.finish(finished=False)
  assert writer.committed.rows == 16


def test_progress_is_told(writer):
  told = []
  appender = Appender(writer, 0.0, told.append)
  for number in range(3):
    appender.put(computed(number))
  appender.finish(finished=False)
  assert told == [4, 8, 12]
