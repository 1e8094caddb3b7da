"""Methods side by side on one prompt of a tiny model."""

import numpy as np
import pytest

import gemma_scope as gs
from gemma_scope.activations.tokens import to_tokens
from gemma_scope.sites import Site
from gemma_scope.viz import attributions

TEXT = " the capital of France is"
METHODS = ("saliency", "cp_lrp", "input_x_gradient")


def run(lm, methods, told=None, streams=()):
  batch = to_tokens(lm, TEXT)
  target = gs.attribution.logit(7)
  tell = (told if told is not None else []).append
  return attributions.attribute_prompt(
    lm,
    batch,
    target,
    methods,
    lambda stage, fraction=None: tell(stage),
    streams,
  )


@pytest.fixture(scope="module")
def made(tiny_lm):
  return run(tiny_lm, METHODS, streams=[Site("resid_post", 2)])


def test_scores_are_those_of_attribute(made, tiny_lm):
  assert [a.method for a in made.attributions] == list(METHODS)
  for attribution in made.attributions:
    alone = gs.attribute(
      tiny_lm, TEXT, gs.attribution.logit(7), method=attribution.method
    )
    expected = np.asarray(alone.per_token().data_array)[0]
    np.testing.assert_allclose(
      attribution.scores, expected, rtol=1e-4, atol=1e-6
    )


def test_the_flow_is_that_of_the_first_method_that_has_one(made):
  flow = made.flow
  assert flow.method == "cp_lrp"
  assert flow.neurons
  np.testing.assert_allclose(flow.sums, flow.target, rtol=1e-3)


def test_streams_are_kept_element_by_element(made):
  ((site, rows),) = made.streams.items()
  row = made.flow.labels.index(str(site))
  assert rows.shape == (made.flow.values.shape[1], 32)
  np.testing.assert_allclose(
    rows.sum(axis=1), made.flow.values[row], rtol=1e-4, atol=1e-6
  )


def test_rankings_are_put_to_the_test(made):
  assert all(np.isfinite(a.area) for a in made.attributions)
  assert len(made.random) > 1


def test_without_a_method_that_propagates_there_is_no_flow(tiny_lm):
  found = run(tiny_lm, ("saliency",), streams=[Site("resid_post", 2)])
  assert found.flow is None
  assert found.streams == {}


def test_long_prompts_are_not_perturbed(tiny_lm, monkeypatch):
  monkeypatch.setattr(attributions, "FAITHFUL_TOKENS", 3)
  monkeypatch.setattr(attributions, "NEURON_TOKENS", 3)
  told = []
  found = run(tiny_lm, ("cp_lrp",), told)
  assert (found.attributions[0].area, found.random) == (None, ())
  assert found.flow.neurons == ()
  assert told == ["Attributing: CP-LRP"]
