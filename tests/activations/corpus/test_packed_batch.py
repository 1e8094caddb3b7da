"""Packed batches: shapes held, positions that restart."""

import numpy as np
import pytest

from gemma_scope.activations.corpus.packed_batch import PackedBatch
from gemma_scope.errors import TextError


def batch():
  ids = np.asarray([[2, 7, 8, 2, 9, 0], [2, 5, 5, 5, 5, 5]], np.int32)
  segments = np.asarray([[1, 1, 1, 2, 2, 0], [1, 1, 1, 1, 1, 1]], np.int32)
  return PackedBatch(ids, segments, ids > 2)


def test_positions_restart_with_every_piece():
  expected = [[0, 1, 2, 0, 1, 0], [0, 1, 2, 3, 4, 5]]
  np.testing.assert_array_equal(batch().positions, expected)


def test_counts_and_rows():
  assert batch().shape == (2, 6)
  assert batch().num_counted == 8
  assert batch()[1:].num_counted == 5
  assert batch()[:1].documents is None


def test_empty_rows_and_rows_together():
  empty = PackedBatch.empty((1, 6))
  assert empty.num_counted == 0
  both = PackedBatch.concatenate([empty, PackedBatch.empty((2, 6))])
  assert both.shape == (3, 6)
  assert both.documents is not None


def test_arrays_of_unequal_shape_are_refused():
  ids = np.zeros((2, 4), np.int32)
  with pytest.raises(TextError, match=r"one shape[\s\S]*int32\[2, 3\]"):
    PackedBatch(ids, ids[:, :3], ids > 0)
