"""Rows of tokens from whatever a user has."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from penzai import pz
import pytest

from gemma_scope.activations.tokens import BUCKET, TokenBatch, to_tokens
from gemma_scope.errors import TextError

PARIS = " Paris"


def test_text_gets_bos_and_pads_on_the_right(tiny_lm):
  batch = to_tokens(tiny_lm, ["The capital of France is", PARIS])
  assert (batch.ids[:, 0] == tiny_lm.tokenizer.bos_id).all()
  paris = tiny_lm.tokenizer.token_id(PARIS)
  assert batch.ids[1].tolist() == [2, paris] + [0] * (batch.width - 2)
  assert batch.lengths.tolist() == [batch.width, 2]
  assert batch.segment_ids[1].tolist() == [1, 1] + [0] * (batch.width - 2)
  assert batch.ids.dtype == batch.segment_ids.dtype == np.int32


def test_one_text_is_a_batch_of_one(tiny_lm):
  one, several = to_tokens(tiny_lm, PARIS), to_tokens(tiny_lm, [PARIS])
  np.testing.assert_array_equal(one.ids, several.ids)
  assert one.ids.shape == (1, 2)


@pytest.mark.parametrize(
  "given",
  [
    [2, 9, 5],
    (2, 9, 5),
    np.array([2, 9, 5]),
    np.array([[2, 9, 5]], np.uint8),
    jnp.array([2, 9, 5]),
    [[2, 9, 5]],
    [np.array([2, 9, 5])],
    [np.int64(2), np.int64(9), 5],
    [jnp.array(2), jnp.array(9), 5],
    pz.nx.wrap(jnp.array([[2, 9, 5]]), "batch", "seq"),
    pz.nx.wrap(jnp.array([[2], [9], [5]]), "seq", "batch"),
  ],
  ids=lambda given: type(given).__name__,
)
def test_ids_are_used_as_they_are(tiny_lm, given):
  batch = to_tokens(tiny_lm, given)
  assert batch.ids.tolist() == [[2, 9, 5]]
  assert batch.segment_ids.tolist() == [[1, 1, 1]]
  assert batch.exact


@pytest.mark.parametrize(
  "given",
  [
    [[2, 9, 5], [2]],
    [(2, 9, 5), [2]],
    [np.array([2, 9, 5]), np.array([2])],
    [jnp.array([2, 9, 5]), jnp.array([2])],
    [np.array([[2, 9, 5]]), [2]],
    np.array([[2, 9, 5], [2, 0, 0]]),
  ],
)
def test_rows_may_have_unequal_lengths(tiny_lm, given):
  batch = to_tokens(tiny_lm, given)
  assert batch.ids.tolist() == [[2, 9, 5], [2, 0, 0]]
  assert batch.segment_ids.tolist() == [[1, 1, 1], [1, 0, 0]]
  assert batch.lengths.tolist() == [3, 1]


def test_a_zero_between_tokens_is_a_token(tiny_lm):
  batch = to_tokens(tiny_lm, [[2, 0, 9, 0, 0]])
  assert batch.segment_ids.tolist() == [[1, 1, 1, 0, 0]]


def test_packed_rows_bring_their_segments(tiny_lm):
  ids, segments = [2, 9, 2, 8, 0], [1, 1, 2, 2, 0]
  batch = to_tokens(tiny_lm, ids, segments)
  assert batch.segment_ids.tolist() == [segments]
  assert batch.lengths.tolist() == [4]


def test_a_batch_of_tokens_stays_itself(tiny_lm):
  batch = to_tokens(tiny_lm, PARIS)
  assert to_tokens(tiny_lm, batch) is batch


def test_text_is_padded_to_buckets_and_given_ids_are_not(tiny_lm):
  batch = to_tokens(tiny_lm, ["a" * (BUCKET - 2), "a"])
  assert batch.width < BUCKET
  padded = batch.to_bucket()
  assert padded.width == BUCKET
  np.testing.assert_array_equal(padded.lengths, batch.lengths)
  np.testing.assert_array_equal(padded.ids[:, : batch.width], batch.ids)
  longer = to_tokens(tiny_lm, "a" * BUCKET).to_bucket()
  assert longer.width == 2 * BUCKET
  whole = TokenBatch(padded.ids, padded.segment_ids, exact=False)
  assert whole.to_bucket().width == BUCKET
  assert to_tokens(tiny_lm, [2, 9, 5]).to_bucket().width == 3


@pytest.mark.parametrize(
  ("given", "message"),
  [
    ("", "prompt is empty"),
    (["a", ""], "prompt is empty"),
    ([], "no tokens to run"),
    ([[]], "no tokens to run"),
    ([[2, 3], []], "no tokens to run"),
    (np.zeros((0, 3), int), "no tokens to run"),
    (None, "no tokens to run"),
    (5, "no tokens to run"),
    ([2.0, 3.0], "whole numbers"),
    (np.array([True, False]), "whole numbers"),
    (["a", 3], "whole numbers"),
    (b"bytes", "whole numbers"),
    (np.array(3), "one row or as rows"),
    ([[2, 3], 5], "one row or as rows"),
    (np.zeros((1, 2, 3), int), "one row or as rows"),
    ([2, -1], "not in the vocabulary"),
    ([2, 512], "ids from 0 to 511"),
    ([2, 2**32 + 7], "not in the vocabulary"),
  ],
)
def test_what_cannot_be_run_is_refused(tiny_lm, given, message):
  with pytest.raises(TextError, match=message):
    to_tokens(tiny_lm, given)


def test_more_tokens_than_the_context_are_refused(tiny_lm):
  config = dataclasses.replace(tiny_lm.config, max_context=6)
  lm = dataclasses.replace(tiny_lm, config=config)
  assert to_tokens(lm, [2] * 6).width == 6
  for given in ([2] * 7, [[2], [2] * 7], "abcdef"):
    with pytest.raises(TextError, match="7 tokens") as error:
      to_tokens(lm, given)
    assert "at most 6 tokens for tiny" in error.value.instead


def test_segments_must_fit_the_tokens(tiny_lm):
  with pytest.raises(TextError, match=r"shape \(1, 2\) for tokens \(1, 3\)"):
    to_tokens(tiny_lm, [2, 9, 5], [1, 1])


@pytest.mark.parametrize("segments", [[1, 2, 1], [1, -1, 2], [1.0, 1.5, 2.0]])
def test_segments_follow_one_another(tiny_lm, segments):
  with pytest.raises(TextError, match="one after the other"):
    to_tokens(tiny_lm, [2, 9, 5], segments)
