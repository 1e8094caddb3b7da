"""Prompts as arrays, and the column that a target means in each."""

import numpy as np
import pytest

from gemma_scope import errors
from gemma_scope.activations.tokens import BUCKET, to_tokens
from gemma_scope.attribution.rows import run_rows, to_rows

TEXTS = [" the capital of France is", " Mary"]  # 6 tokens and 2


@pytest.mark.parametrize(
  ("position", "columns"),
  [(-1, [5, 1]), (-2, [4, 0]), (0, [0, 0]), (1, [1, 1]), ((3, -1), [3, 1])],
)
def test_a_position_counts_in_each_row(double, position, columns):
  rows = to_rows(to_tokens(double.lm, TEXTS), position)
  np.testing.assert_array_equal(rows.columns, columns)
  assert rows.ids.shape == rows.segment_ids.shape == (2, BUCKET)
  np.testing.assert_array_equal((rows.segment_ids != 0).sum(1), [6, 2])


def test_ids_given_as_numbers_keep_their_shape(double):
  rows = to_rows(to_tokens(double.lm, double.ids), -1)
  np.testing.assert_array_equal(rows.ids, double.ids[None])


@pytest.mark.parametrize("position", [2, -3, 99])
def test_a_position_outside_any_row_is_refused(double, position):
  with pytest.raises(
    errors.TextError, match=rf"position {position}, prompts of \[6, 2\] tokens"
  ):
    to_rows(to_tokens(double.lm, TEXTS), position)


def test_positions_for_another_number_of_prompts_are_refused(double):
  with pytest.raises(errors.TextError, match="3 positions, 2 prompts"):
    to_rows(to_tokens(double.lm, TEXTS), (0, 1, 1))


def test_rows_may_be_taken_again(double):
  rows = to_rows(to_tokens(double.lm, TEXTS), -1)
  once, _ = run_rows(double.lm.model, rows)
  index = np.asarray([1, 0, 1])
  taken, _ = run_rows(double.lm.model, rows.take(index))
  np.testing.assert_allclose(taken, np.asarray(once)[index], atol=1e-6)
