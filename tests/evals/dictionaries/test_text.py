"""Whatever a user has, as packed batches of one shape."""

import numpy as np
import pytest

from gemma_scope.activations.corpus.packed_batch import PackedBatch
from gemma_scope.activations.tokens import to_tokens
from gemma_scope.errors import TextError
from gemma_scope.evals.dictionaries.text import cut_rows, to_batches

TEXTS = ["the city", "Paris is in the city"]


def test_texts_rows_and_batches_are_the_same(tiny_lm):
  rows = to_tokens(tiny_lm, TEXTS).to_bucket()
  (from_texts,) = to_batches(tiny_lm, TEXTS)
  for given in (rows, [rows], from_texts, [from_texts]):
    (found,) = to_batches(tiny_lm, given)
    np.testing.assert_array_equal(found.ids, rows.ids)
    np.testing.assert_array_equal(found.counted, from_texts.counted)
  (one,) = to_batches(tiny_lm, TEXTS[0])
  assert len(one.ids) == 1


def test_bos_eos_and_padding_do_not_count(tiny_lm):
  rows = to_tokens(tiny_lm, [[2, 300, 1, 301], [2, 300]])
  (found,) = to_batches(tiny_lm, rows)
  assert found.counted.tolist() == [
    [False, True, False, True],
    [False, True, False, False],
  ]


def test_rows_are_cut_into_parts_of_one_shape():
  ids = np.arange(1, 16, dtype=np.int32).reshape(5, 3)
  batch = PackedBatch(ids, np.ones_like(ids), np.ones_like(ids, dtype=bool))
  parts = list(cut_rows(batch, 2))
  assert [p.ids.shape for p in parts] == [(2, 3)] * 3
  together = PackedBatch.concatenate(parts)
  np.testing.assert_array_equal(together.ids[:5], ids)
  assert not together.counted[5:].any()
  assert not together.segment_ids[5:].any()
  assert [p.ids.shape for p in cut_rows(batch, 5)] == [(5, 3)]


def test_no_batch_is_refused(tiny_lm):
  with pytest.raises(TextError, match="no text to evaluate on"):
    list(to_batches(tiny_lm, []))
