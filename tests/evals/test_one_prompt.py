"""One prompt: the same area as the entrance's, and few runs."""

import numpy as np
import pytest

from gemma_scope.attribution.attribute import attribute
from gemma_scope.attribution.objectives import logit_difference
from gemma_scope.errors import TextError
from gemma_scope.evals import (
  Curves,
  FaithfulnessOptions,
  faithfulness,
  prompt_faithfulness,
)
from tests.evals.conftest import PROMPTS


def test_equal_to_the_entrance(tiny, target):
  method = "input_x_gradient"
  found = attribute(tiny.lm, PROMPTS[1], target, method=method)
  scores = np.asarray(found.per_token().data_array)[0]
  one = prompt_faithfulness(tiny.lm, PROMPTS[1], target, {method: scores})
  report = faithfulness(
    tiny.lm,
    PROMPTS[1],
    target,
    methods=(method,),
    options=FaithfulnessOptions(
      metrics=(Curves(steps=5),), random_seeds=(0, 1)
    ),
  )
  expected = report.values[method]["abpc"][0]
  np.testing.assert_allclose(one.areas[method], expected, rtol=1e-3, atol=1e-5)
  np.testing.assert_allclose(
    np.mean(one.random),
    report.values["random"]["abpc"][0],
    rtol=1e-3,
    atol=1e-5,
  )


def test_several_prompts(tiny, target):
  with pytest.raises(TextError, match="judges one prompt"):
    prompt_faithfulness(tiny.lm, list(PROMPTS), target, {})


@pytest.mark.real
def test_real_model(real_lm):
  text = "When Mary and John went to the store, John gave a drink to"
  target = logit_difference(" Mary", " John")
  found = attribute(real_lm, text, target, method="cp_lrp")
  scores = np.asarray(found.per_token().data_array)[0]
  one = prompt_faithfulness(
    real_lm, text, target, {"cp_lrp": scores, "reversed": -scores}
  )
  assert one.areas["cp_lrp"] > max(one.random)
  np.testing.assert_allclose(one.areas["reversed"], -one.areas["cp_lrp"])
