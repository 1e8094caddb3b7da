"""Options of integrated gradients; the path itself is tested in gradients."""

import numpy as np
import pytest

from gemma_scope import errors
from gemma_scope.attribution.attribute import GradientOptions, attribute
from gemma_scope.attribution.baselines import OtherPrompt, ReplacedTokens
from gemma_scope.attribution.objectives import logit


def run(lm, given, baseline, at="embed", **options):
  return attribute(
    lm,
    given,
    logit(" Paris"),
    at=at,
    options=GradientOptions(baseline=baseline, **options),
  )


def test_another_prompt_is_where_the_path_starts(double):
  lm = double.lm
  other = lm.tokenizer.encode(" the city of Rome is")
  assert len(other) == len(double.ids)
  result = run(lm, double.ids, OtherPrompt(other), steps=40)
  token = lm.tokenizer.token_id(" Paris")
  bottom = double.value({token: 1.0}, ids=np.asarray(other))
  np.testing.assert_allclose(
    result.expected[next(iter(result))], result.target - bottom, rtol=1e-4
  )
  assert abs(result.residual()[0]) < 1e-3
  scores = np.asarray(result.per_token().data_array)[0]
  same = np.asarray(other) == double.ids
  assert np.abs(scores[same]).max() < 1e-6
  assert np.abs(scores[~same]).min() > 1e-3


def test_one_token_in_the_place_of_all_others(double):
  lm = double.lm
  result = run(lm, double.ids, ReplacedTokens(" and"), steps=40)
  ids = np.full_like(double.ids, lm.tokenizer.token_id(" and"))
  ids[0] = double.ids[0]
  token = lm.tokenizer.token_id(" Paris")
  bottom = double.value({token: 1.0}, ids=ids)
  np.testing.assert_allclose(
    result.expected[next(iter(result))], result.target - bottom, rtol=1e-4
  )


def test_gradients_that_are_not_finite_are_refused(tiny_lm):
  """At the zero vector a norm's gradient is infinite in float32."""
  lm = tiny_lm  # eight layers: 1e3 for each norm overflows
  with pytest.raises(
    errors.ConfigError,
    match=r"not finite.*\n.*trapezoid.*\n.*gauss_legendre.*midpoint",
  ):
    run(lm, " the capital of", "zero", quadrature="trapezoid", steps=3)
