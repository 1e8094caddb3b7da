"""The flow of relevance is what the attribution holds, row by row."""

import numpy as np
import pytest

import gemma_scope as gs
from gemma_scope import errors
from gemma_scope.analysis import flow

TEXT = " the capital of France is"


@pytest.fixture(scope="module")
def found(tiny_lm):
  return gs.attribute(
    tiny_lm,
    TEXT,
    gs.attribution.logit(7),
    method="cp_lrp",
    at=[*flow.SITES, flow.NEURONS],
  )


def test_rows_are_the_residual_streams(found, tiny_lm):
  made = flow.flow_of(found, "CP-LRP", count=5)
  layers = tiny_lm.config.num_layers
  assert made.labels[0] == "embed"
  assert made.labels[1:] == tuple(f"resid_post[{i}]" for i in range(layers))
  expected = found.per_token("resid_post[2]").data_array[0]
  np.testing.assert_array_equal(made.values[3], expected)
  # CP-LRP conserves: every row sums to the target.
  assert made.conserves
  np.testing.assert_allclose(made.residuals, 0, atol=2e-4 * abs(made.target))


def test_heads_and_neurons_are_those_of_the_attribution(found, tiny_lm):
  made = flow.flow_of(found, "CP-LRP", count=5)
  head = np.asarray(found["z[3]"].data_array)[0].sum(axis=(0, 2))
  np.testing.assert_allclose(made.heads[3], head, rtol=1e-5, atol=1e-7)
  sizes = [abs(neuron.relevance) for neuron in made.neurons]
  assert len(sizes) == 5
  assert sizes == sorted(sizes, reverse=True)
  first = made.neurons[0]
  column = np.asarray(found[first.label].data_array)[0, :, first.index]
  np.testing.assert_allclose(first.relevance, column.sum(), rtol=1e-4)
  assert first.position == np.abs(column).argmax()


def test_neurons_may_be_left_out(tiny_lm):
  found = gs.attribute(
    tiny_lm,
    TEXT,
    gs.attribution.logit(7),
    method="attn_lrp",
    at=flow.SITES,
  )
  made = flow.flow_of(found, "AttnLRP")
  assert made.neurons == ()
  assert not made.conserves


def test_rows_and_labels_must_fit():
  with pytest.raises(errors.GemmaScopeError, match="2 labels"):
    flow.RelevanceFlow(
      "m", "M", ("a", "b"), np.zeros((3, 4)), 1.0, True, np.zeros((1, 1)), ()
    )
