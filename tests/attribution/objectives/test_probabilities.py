"""Log-probabilities and divergences against the slow model."""

import numpy as np
import pytest
from scipy import special

import gemma_scope as gs
from gemma_scope import errors
from gemma_scope.attribution import kl_divergence, log_prob, logit
from gemma_scope.attribution.evaluate import ask, evaluate

TEXTS = [" the capital of France is", " Mary"]


def logits_of(double, text):
  acts = gs.capture(double.lm, text, ["logits"], logits_at=-1)
  return np.asarray(acts["logits"].data_array, float)[0, 0]


def value_of(double, given, target):
  _, rows, resolved = ask(double.lm, given, target)
  return np.asarray(evaluate(double.lm.model, rows, resolved, {})[0])


def test_log_probability_of_each_prompts_token(double):
  found = value_of(double, TEXTS, log_prob([7, 9]))
  expected = [
    special.log_softmax(logits_of(double, text))[token]
    for text, token in zip(TEXTS, [7, 9])
  ]
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_divergence_from_another_run(double):
  p, q = (special.log_softmax(logits_of(double, text)) for text in TEXTS)
  found = value_of(double, TEXTS[1], kl_divergence(TEXTS[0]))
  np.testing.assert_allclose(found, [(np.exp(p) * (p - q)).sum()], rtol=1e-4)
  assert abs(value_of(double, TEXTS[0], kl_divergence(TEXTS[0]))[0]) < 1e-6


def test_gradients_are_those_of_the_function(double):
  """Saliency of log p is that of the logits, minus the mean by p."""
  lm, at, token = double.lm, "resid_post[0]", 7
  found = gs.attribute(
    lm, TEXTS[0], log_prob(token), method="input_x_gradient", at=[at]
  )[at]
  p = special.softmax(logits_of(double, TEXTS[0]))
  likely = np.argsort(-p)[:512]
  parts = [
    gs.attribute(lm, TEXTS[0], logit(i), method="input_x_gradient", at=[at])[
      at
    ].data_array
    * (float(i == token) - p[i])
    for i in likely.tolist()[:3]
  ]
  whole = gs.attribution.weighted_logits(
    likely.tolist(), [float(i == token) - p[i] for i in likely]
  )
  expected = gs.attribute(
    lm, TEXTS[0], whole, method="input_x_gradient", at=[at]
  )[at]
  np.testing.assert_allclose(
    found.data_array, expected.data_array, rtol=1e-3, atol=1e-5
  )
  assert np.abs(parts[0]).sum() > 0


@pytest.mark.parametrize("method", ["attn_lrp", "cp_lrp"])
def test_relevance_rules_pass_and_promise_no_sum(double, method):
  found = gs.attribute(double.lm, TEXTS[0], log_prob(7), method=method)
  assert np.isfinite(found.total()).all()
  assert np.isnan(found.expected[gs.Site("embed")]).all()


def test_a_reference_for_other_prompts_is_refused(double):
  with pytest.raises(errors.TextError, match="tokens for 2 prompts, and 1"):
    value_of(double, TEXTS[0], kl_divergence(TEXTS))
