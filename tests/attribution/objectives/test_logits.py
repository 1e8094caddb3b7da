"""Targets made of logits: from texts and ids to directions and values."""

import jax.numpy as jnp
import numpy as np
import pytest

from gemma_scope import errors
from gemma_scope.attribution.objectives import (
  logit,
  logit_difference,
  weighted_logits,
)
from gemma_scope.attribution.objectives.logits import ResolvedLogits
from gemma_scope.attribution.objectives.protocol import Seen


def seen_of(normed, table):
  columns = jnp.zeros(normed.shape[0], int)
  return Seen(jnp.asarray(normed), jnp.asarray(table), columns, {})


def test_texts_and_ids_are_the_same_target(double):
  tokenizer = double.lm.tokenizer
  paris, rome = tokenizer.encode(" Paris Rome", bos=False)
  for target in (
    logit_difference(" Paris", " Rome"),
    weighted_logits((paris, rome), (1.0, -1.0)),
  ):
    resolved = target.resolve(double.lm)
    assert isinstance(resolved, ResolvedLogits)
    np.testing.assert_array_equal(resolved.ids, [[paris, rome]])
    np.testing.assert_array_equal(resolved.weights, [1, -1])
    assert resolved.ids.dtype == np.int32
    assert resolved.weights.dtype == np.float32
    assert target.position == -1
  single = logit(rome, position=3)
  assert single.position == 3
  np.testing.assert_array_equal(single.resolve(double.lm).ids, [[rome]])


def test_value_reads_the_rows_it_names(double):
  rng = np.random.default_rng(0)
  table = rng.standard_normal((512, 32)).astype(np.float32)
  normed = rng.standard_normal((3, 32)).astype(np.float32)
  target = weighted_logits((7, 300, 11), (0.5, -2.0, 3.0)).resolve(double.lm)
  logits = normed.astype(np.float64) @ table.T.astype(np.float64)
  expected = 0.5 * logits[:, 7] - 2 * logits[:, 300] + 3 * logits[:, 11]
  np.testing.assert_allclose(
    target.value(seen_of(normed, table)), expected, rtol=1e-5, atol=1e-5
  )
  direction = 0.5 * table[7] - 2 * table[300] + 3 * table[11]
  np.testing.assert_allclose(
    target.direction(table), direction[None], rtol=1e-5, atol=1e-6
  )


def test_every_prompt_may_have_its_own_token(double):
  rng = np.random.default_rng(1)
  table = rng.standard_normal((512, 32)).astype(np.float32)
  normed = rng.standard_normal((3, 32)).astype(np.float32)
  target = logit_difference([7, 8, 9], 20).resolve(double.lm)
  assert target.rows == 3
  logits = normed @ table.T
  expected = logits[[0, 1, 2], [7, 8, 9]] - logits[:, 20]
  found = target.value(seen_of(normed, table))
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
  order = np.asarray([2, 0, 2, 1])
  found = target.take(order).value(seen_of(normed[order], table))
  np.testing.assert_allclose(found, expected[order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
  ("token", "match"),
  [
    ("Paris Rome", "A target must be exactly one token"),
    ("", "this is 0"),
    (-1, "-1"),
    (512, "512"),
  ],
)
def test_what_is_not_one_token_is_refused(double, token, match):
  with pytest.raises(errors.TextError, match=match):
    logit(token).resolve(double.lm)


def test_a_text_and_its_id_are_one_token(double):
  paris = double.lm.tokenizer.token_id(" Paris")
  target = logit_difference(" Paris", paris)
  with pytest.raises(errors.TextError, match="must not name a token twice"):
    target.resolve(double.lm)


@pytest.mark.parametrize("token", [" Paris", 9])
def test_a_difference_needs_two_tokens(token):
  with pytest.raises(errors.TextError, match="two different tokens"):
    logit_difference(token, token)


def test_counts_that_do_not_fit_are_refused(double):
  with pytest.raises(errors.TextError, match=r"received: \[2, 3\] tokens"):
    logit_difference([1, 2], [3, 4, 5]).resolve(double.lm)
  with pytest.raises(errors.TextError, match="2 tokens and 1 weights"):
    weighted_logits([1, 2], [1.0])
