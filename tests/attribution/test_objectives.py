"""Targets: from texts and ids to a direction and a value."""

import numpy as np
import pytest

from gemma_scope import errors
from gemma_scope.attribution.objectives import Target, logit, logit_difference


@pytest.fixture
def tokenizer(double):
  return double.lm.tokenizer


def test_texts_and_ids_are_the_same_target(tokenizer):
  paris, rome = tokenizer.encode(" Paris Rome", bos=False)
  for target in (
    logit_difference(" Paris", " Rome"),
    Target((paris, rome), (1.0, -1.0)),
  ):
    resolved = target.resolve(tokenizer)
    np.testing.assert_array_equal(resolved.ids, [paris, rome])
    np.testing.assert_array_equal(resolved.weights, [1, -1])
    assert resolved.ids.dtype == np.int32
    assert resolved.weights.dtype == np.float32
    assert target.position == -1
  single = logit(rome, position=3)
  assert single.position == 3
  np.testing.assert_array_equal(single.resolve(tokenizer).ids, [rome])
  np.testing.assert_array_equal(single.resolve(tokenizer).weights, [1])


def test_value_reads_the_rows_it_names(tokenizer):
  rng = np.random.default_rng(0)
  table = rng.standard_normal((512, 32)).astype(np.float32)
  normed = rng.standard_normal((3, 32)).astype(np.float32)
  target = Target((7, 300, 11), (0.5, -2.0, 3.0)).resolve(tokenizer)
  logits = normed.astype(np.float64) @ table.T.astype(np.float64)
  expected = 0.5 * logits[:, 7] - 2 * logits[:, 300] + 3 * logits[:, 11]
  np.testing.assert_allclose(
    target.value(normed, table), expected, rtol=1e-5, atol=1e-5
  )
  direction = 0.5 * table[7] - 2 * table[300] + 3 * table[11]
  np.testing.assert_allclose(
    target.direction(table), direction, rtol=1e-5, atol=1e-6
  )


@pytest.mark.parametrize(
  ("token", "match"),
  [
    ("Paris Rome", "A target must be exactly one token"),
    ("", "this is 0"),
    (-1, "-1"),
    (512, "512"),
  ],
)
def test_what_is_not_one_token_is_refused(tokenizer, token, match):
  with pytest.raises(errors.TextError, match=match):
    logit(token).resolve(tokenizer)


def test_a_text_and_its_id_are_one_token(tokenizer):
  target = logit_difference(" Paris", tokenizer.token_id(" Paris"))
  with pytest.raises(errors.TextError, match="must not name a token twice"):
    target.resolve(tokenizer)


@pytest.mark.parametrize("token", [" Paris", 9])
def test_a_difference_needs_two_tokens(token):
  with pytest.raises(errors.TextError, match="two different tokens"):
    logit_difference(token, token)
