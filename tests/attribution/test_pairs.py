"""Pairs of prompts that fit each other token for token."""

import numpy as np
import pytest

from gemma_scope import errors
from gemma_scope.activations.tokens import BUCKET
from gemma_scope.attribution import logit_difference
from gemma_scope.attribution.pairs import to_pairs

CLEAN = [" the capital of France is", " Mary"]
CORRUPT = [" the capital of Rome is", " John"]
TARGET = logit_difference([7, 8], 9)


def test_pairs_share_columns_and_target(double):
  source, base, pairs = to_pairs(double.lm, CLEAN, CORRUPT, TARGET)
  np.testing.assert_array_equal(source.lengths, base.lengths)
  np.testing.assert_array_equal(pairs.source.columns, pairs.base.columns)
  assert pairs.source.ids.shape == pairs.base.ids.shape == (2, BUCKET)
  swapped = pairs.swapped()
  np.testing.assert_array_equal(swapped.base.ids, pairs.source.ids)
  index = np.asarray([1, 1, 0])
  some = pairs.take(index)
  np.testing.assert_array_equal(some.base.ids, pairs.base.ids[index])
  np.testing.assert_array_equal(some.target.ids[:, 0], [8, 8, 7])


def test_numbers_beside_text_are_padded_alike(double):
  ids = double.lm.tokenizer.encode(CORRUPT[0])
  target = logit_difference(7, 9)
  *_, pairs = to_pairs(double.lm, CLEAN[0], ids, target)
  assert pairs.source.ids.shape == pairs.base.ids.shape == (1, BUCKET)
  *_, pairs = to_pairs(double.lm, ids, CLEAN[0], target)
  assert pairs.source.ids.shape == pairs.base.ids.shape == (1, BUCKET)


def test_prompts_of_unequal_length_are_refused(double):
  with pytest.raises(errors.TextError, match=r"2 tokens \(.*\) and 3 tokens"):
    to_pairs(
      double.lm, CLEAN, [CORRUPT[0], " John Mary"], logit_difference(7, 9)
    )
  with pytest.raises(errors.TextError, match="2 and 1 prompts"):
    to_pairs(double.lm, CLEAN, CORRUPT[:1], logit_difference(7, 9))
