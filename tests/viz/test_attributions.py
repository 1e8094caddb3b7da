"""Methods side by side on one prompt of a tiny model."""

import numpy as np
import pytest

import gemma_scope as gs
from gemma_scope.activations.tokens import to_tokens
from gemma_scope.viz import attributions

TEXT = " the capital of France is"
METHODS = ("saliency", "cp_lrp", "input_x_gradient")


def run(lm, methods, told=None):
  batch = to_tokens(lm, TEXT)
  target = gs.attribution.logit(7)
  tell = (told if told is not None else []).append
  return attributions.attribute_prompt(
    lm, batch, target, methods, lambda stage, fraction=None: tell(stage)
  )


@pytest.fixture(scope="module")
def made(tiny_lm):
  return run(tiny_lm, METHODS)


def test_scores_are_those_of_attribute(made, tiny_lm):
  found, _, _ = made
  assert [a.method for a in found] == list(METHODS)
  for attribution in found:
    alone = gs.attribute(
      tiny_lm, TEXT, gs.attribution.logit(7), method=attribution.method
    )
    expected = np.asarray(alone.per_token().data_array)[0]
    np.testing.assert_allclose(
      attribution.scores, expected, rtol=1e-4, atol=1e-6
    )


def test_the_flow_is_that_of_the_first_method_that_has_one(made):
  _, flow, _ = made
  assert flow.method == "cp_lrp"
  assert flow.neurons
  np.testing.assert_allclose(flow.sums, flow.target, rtol=1e-3)


def test_rankings_are_put_to_the_test(made):
  found, _, random = made
  assert all(np.isfinite(a.area) for a in found)
  assert len(random) > 1


def test_without_a_method_that_propagates_there_is_no_flow(tiny_lm):
  _, flow, _ = run(tiny_lm, ("saliency",))
  assert flow is None


def test_long_prompts_are_not_perturbed(tiny_lm, monkeypatch):
  monkeypatch.setattr(attributions, "FAITHFUL_TOKENS", 3)
  monkeypatch.setattr(attributions, "NEURON_TOKENS", 3)
  told = []
  found, flow, random = run(tiny_lm, ("cp_lrp",), told)
  assert (found[0].area, random, flow.neurons) == (None, (), ())
  assert told == ["Attributing: CP-LRP"]
