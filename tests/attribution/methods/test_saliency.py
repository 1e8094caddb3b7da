import numpy as np
import pytest

from gemma_scope import axes, errors
from gemma_scope.attribution.attribute import attribute
from gemma_scope.attribution.methods.saliency import (
  SaliencyOptions,
  site_gradients,
)
from gemma_scope.attribution.objectives import logit
from gemma_scope.sites import Site

AT = ("embed", "z[1]", "mlp_act[0]", "pattern[1]")
STEP = 1e-5


def slope(double, token, site, direction):
  """The derivative along a direction of the site, by finite differences."""

  def value(t):
    edits = {site: lambda x: x + t * direction}
    return double.value({token: 1.0}, edits)

  return (value(STEP) - value(-STEP)) / (2 * STEP)


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_a_token_scores_the_norm_of_its_gradient(double, norm):
  token = double.lm.tokenizer.token_id(" Paris")
  result = attribute(
    double.lm,
    double.ids,
    logit(token),
    method="saliency",
    at=AT,
    options=SaliencyOptions(norm),
  )
  column = len(double.ids) - 1
  for site in result:
    shape = double.site(site).shape
    axis = site.info.axes[1:].index(axes.SEQ)
    at_token = np.zeros(shape, bool)
    at_token[(slice(None),) * axis + (column,)] = True
    gradient = np.zeros(shape)
    for place in zip(*np.nonzero(at_token)):
      direction = np.zeros(shape)
      direction[place] = 1.0
      gradient[place] = slope(double, token, site, direction)
    expected = np.abs(gradient).sum()
    if norm == "l2":
      expected = np.linalg.norm(gradient)
    found = np.asarray(result.per_token(site).data_array)[0, column]
    assert expected > 1e-3
    np.testing.assert_allclose(found, expected, rtol=2e-4)
    assert (np.asarray(result[site].data_array) >= 0).all()


def test_another_target_does_not_compile_again(double):
  def run(target):
    attribute(double.lm, double.ids, target, method="saliency")

  run(logit(" Paris"))
  before = site_gradients._cache_size()
  run(logit(" Rome"))
  assert site_gradients._cache_size() == before


def test_a_token_without_gradient_scores_zero(double):
  result = attribute(
    double.lm, double.ids, logit(" Paris", position=2), method="saliency"
  )
  scores = np.asarray(result.per_token().data_array)[0]
  assert scores[:3].all()
  assert not scores[3:].any()
  assert np.isnan(result.expected[Site("embed")]).all()


def test_unknown_norms_are_refused(double):
  with pytest.raises(errors.ConfigError, match=r"norm='max'\n.*norm='l2' or"):
    attribute(
      double.lm,
      double.ids,
      logit(" Paris"),
      method="saliency",
      options=SaliencyOptions("max"),
    )
