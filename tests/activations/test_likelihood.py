"""NLL against the float64 oracle, and its change with an interval."""

import dataclasses

import numpy as np
import pytest

from gemma_scope import surgery
from gemma_scope.activations import likelihood
from gemma_scope.activations.likelihood import NllChange, nll_change, token_nll
from gemma_scope.activations.tokens import to_tokens
from gemma_scope.errors import ConfigError, TextError
from gemma_scope.model.build import random_tensors
from gemma_scope.sites import Site
from gemma_scope.testing import oracle

TEXTS = [f"{name} went to Paris" * n for n in (1, 3) for name in "ABCDE"]
VECTOR = np.random.default_rng(0).normal(size=32)


def expected(lm, ids, edits=None):
  tensors = random_tensors(lm.config, 0)
  values = oracle.oracle_forward(tensors, lm.config, np.asarray(ids), edits)
  logits = values[Site("logits")][:-1]
  total = np.log(np.exp(logits).sum(axis=1))
  return total - logits[np.arange(len(logits)), ids[1:]]


def test_every_token_but_the_first(tiny_lm):
  """More texts than one pass takes, more tokens than one chunk of logits."""
  found = token_nll(tiny_lm, TEXTS)
  assert len(found) == len(TEXTS) > likelihood.ROWS_AT_ONCE
  for text, scores in zip(TEXTS, found):
    ids = tiny_lm.tokenizer.encode(text)
    np.testing.assert_allclose(scores, expected(tiny_lm, ids), atol=2e-5)


def test_a_text_counts_as_generated_behind_bos(tiny_lm):
  edit = surgery.steer("resid_post[3]", VECTOR, positions=surgery.generated())
  edited = tiny_lm.replace(surgery.intervene(tiny_lm.model, edit))
  ids = tiny_lm.tokenizer.encode(TEXTS[0])

  def behind(value):
    value = value.copy()
    value[1:] += VECTOR
    return value

  (found,) = token_nll(edited, TEXTS[0])
  truth = expected(tiny_lm, ids, {Site("resid_post", 3): behind})
  np.testing.assert_allclose(found, truth, atol=2e-5)


def test_texts_behind_a_prompt(tiny_lm):
  """Which is not predicted, and is not generated."""
  edit = surgery.steer("resid_post[3]", VECTOR, positions=surgery.generated())
  edited = tiny_lm.replace(surgery.intervene(tiny_lm.model, edit))
  prompt, text = "The capital of", " France is Paris"
  ids = tiny_lm.tokenizer.encode(prompt)
  start = len(ids)
  ids += tiny_lm.tokenizer.encode(text, bos=False)

  def behind(value):
    value = value.copy()
    value[start:] += VECTOR
    return value

  (found,) = token_nll(edited, text, after=prompt)
  truth = expected(tiny_lm, ids, {Site("resid_post", 3): behind})
  np.testing.assert_allclose(found, truth[start - 1 :], atol=2e-5)
  batch = to_tokens(tiny_lm, text)
  with pytest.raises(TextError, match="not before rows of tokens"):
    token_nll(tiny_lm, batch, after=prompt)


def test_the_change_is_the_difference_of_means(tiny_lm):
  model = surgery.intervene(
    tiny_lm.model, surgery.steer("resid_post[3]", VECTOR)
  )
  found = nll_change(tiny_lm, model, TEXTS)
  before = np.concatenate(token_nll(tiny_lm, TEXTS))
  after = np.concatenate(token_nll(tiny_lm.replace(model), TEXTS))
  assert found.before == pytest.approx(before.mean(), rel=1e-6)
  assert found.after == pytest.approx(after.mean(), rel=1e-6)
  assert found.low < found.change < found.high
  assert found == nll_change(tiny_lm, tiny_lm.replace(model), TEXTS)
  one = nll_change(tiny_lm, model, TEXTS[0])
  assert one.num_texts == 1
  assert np.isnan(one.low)


def test_the_interval_is_that_of_equal_texts():
  """Texts of one token: the percentile interval of a plain mean."""
  values = np.random.default_rng(0).normal(1.0, 2.0, 400)
  low, high = likelihood._interval(values, np.ones(400), seed=0)
  half = 1.96 * values.std() / 20
  assert low == pytest.approx(values.mean() - half, abs=0.02)
  assert high == pytest.approx(values.mean() + half, abs=0.02)


def test_it_says_what_it_is():
  shown = str(NllChange(2.0, 1.5, -0.7, -0.3, 4))
  assert "2.000 -> 1.500 nats a token on 4 texts" in shown
  assert "−0.500 [−0.700, −0.300]" in shown
  assert "1 text:" in str(NllChange(2.0, 1.5, np.nan, np.nan, 1))


@pytest.mark.parametrize("given", [[2], [[2, 5], [2]], []])
def test_texts_without_a_token_to_predict_are_refused(tiny_lm, given):
  with pytest.raises(TextError):
    token_nll(tiny_lm, given)


def test_a_model_of_another_shape_is_refused(tiny_lm):
  config = dataclasses.replace(tiny_lm.config, window=4)
  other = dataclasses.replace(tiny_lm.model, config=config)
  with pytest.raises(ConfigError, match="another shape"):
    nll_change(tiny_lm, other, TEXTS)
