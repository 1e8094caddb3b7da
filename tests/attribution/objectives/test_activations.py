"""Targets inside the model against what a capture reads there."""

import numpy as np
import pytest

import gemma_scope as gs
from gemma_scope import errors
from gemma_scope.attribution import activation, projection
from gemma_scope.attribution.evaluate import ask, evaluate

TEXT = " the capital of France is"


def value_of(double, target):
  _, rows, resolved = ask(double.lm, TEXT, target)
  return np.asarray(evaluate(double.lm.model, rows, resolved, {})[0])


@pytest.mark.parametrize(
  ("site", "element", "index"),
  [
    ("mlp_act[0]", {"neurons": 5}, (5,)),
    ("z[1]", {"heads": 2, "projection": 3}, (2, 3)),
    ("resid_post[1]", {"embedding": -1}, (-1,)),
    ("final_norm", {"embedding": 4}, (4,)),
  ],
)
def test_an_element_is_what_capture_reads(double, site, element, index):
  acts = gs.capture(double.lm, TEXT, [site])
  column = np.asarray(acts[site].data_array)[0, 2]
  found = value_of(double, activation(site, element, position=2))
  np.testing.assert_allclose(found, [column[index]], rtol=1e-6)


def test_a_projection_is_an_inner_product(double):
  direction = np.random.default_rng(0).normal(size=(4, 16))
  acts = gs.capture(double.lm, TEXT, ["z[0]"])
  expected = (np.asarray(acts["z[0]"].data_array)[0, -1] * direction).sum()
  found = value_of(double, projection("z[0]", direction))
  np.testing.assert_allclose(found, [expected], rtol=1e-5)


def test_what_comes_later_has_no_relevance(double):
  target = activation("mlp_act[0]", {"neurons": 5})
  found = gs.attribute(
    double.lm,
    TEXT,
    target,
    method="input_x_gradient",
    at=["embed", "mlp_in[0]", "resid_post[0]", "resid_post[1]"],
  )
  assert np.abs(found["mlp_in[0]"].data_array).sum() > 0
  assert np.abs(found["embed"].data_array).sum() > 0
  for late in ("resid_post[0]", "resid_post[1]"):
    assert not np.asarray(found[late].data_array).any()


@pytest.mark.parametrize(
  ("make", "match"),
  [
    (lambda: activation("mlp_act[0]", {"neurons": 10_000}), "0 to "),
    (lambda: activation("mlp_act[0]", {"heads": 0}), "neurons: 0 to "),
    (lambda: activation("mlp_act[:]", {"neurons": 0}), "a single layer"),
    (lambda: activation("pattern[0]", {"heads": 0}), "a single layer"),
    (lambda: projection("embed", np.zeros(3)), r"shape \(32,\)"),
  ],
)
def test_what_is_not_there_is_refused(double, make, match):
  with pytest.raises(errors.SiteError, match=match):
    value_of(double, make())
