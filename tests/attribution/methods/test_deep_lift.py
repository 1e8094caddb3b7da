"""DeepLIFT through a whole model: completeness at every kind of site."""

import numpy as np
import pytest

import gemma_scope as gs
from gemma_scope.attribution.attribute import attribute
from gemma_scope.attribution.baselines import OtherPrompt
from gemma_scope.attribution.methods.deep_lift import (
  DeepLiftOptions,
  contributions,
)
from gemma_scope.attribution.objectives import log_prob, logit_difference
from gemma_scope.sites import Site

# Each compiles: tokens, inside attention, inside the feed-forward.
AT = ("embed", "query[1]", "mlp_act[0]")


def run(lm, given, at, baseline=None, target=None):
  return attribute(
    lm,
    given,
    target or logit_difference(" Paris", " Rome"),
    method="deeplift",
    at=at,
    options=DeepLiftOptions(baseline),
  )


def test_contributions_are_complete_at_every_kind_of_site(double):
  result = run(double.lm, double.ids, AT)
  a, b = double.lm.tokenizer.encode(" Paris Rome", bos=False)
  for site in result:
    x = double.site(site)
    start = np.broadcast_to(x[1:].mean(axis=0), x.shape).copy()
    start[0] = x[0]
    target = {a: 1.0, b: -1.0}
    bottom = double.value(target, {site: lambda _, v=start: v})
    change = double.value(target) - bottom
    np.testing.assert_allclose(
      result.expected[site], [change], rtol=1e-4, atol=1e-5
    )
    mass = np.abs(np.asarray(result[site].data_array)).sum()
    assert abs(result.total(site)[0] - change) < 1e-5 * mass
    assert mass > 1e-2


def test_through_a_scan_and_a_global_layer(scanned):
  result = run(scanned.lm, scanned.ids, "resid_mid[2]")
  for site in result:
    mass = np.abs(np.asarray(result[site].data_array)).sum()
    assert abs(result.residual(site)[0]) < 1e-5 * mass


def test_a_close_reference_gives_input_x_gradient(double):
  """Slopes between two runs become derivatives as the runs meet."""
  site = Site("resid_post", 0)
  x = double.site(site)
  way = np.random.default_rng(0).standard_normal(x.shape) * 0.01
  token = double.lm.tokenizer.token_id(" Paris")
  result = run(
    double.lm,
    double.ids,
    site,
    (x - way).astype(np.float32),
    gs.attribution.logit(token),
  )
  found = np.asarray(result[site].data_array)[0]
  middle = double.slope(
    {token: 1.0}, site, np.ones_like(x), baseline=x - way, at=0.5
  )
  # The sum along the way, and a single column of it.
  np.testing.assert_allclose(found.sum(), middle, rtol=2e-3)
  column = np.zeros_like(x)
  column[-1] = 1
  part = double.slope({token: 1.0}, site, column, baseline=x - way, at=0.5)
  np.testing.assert_allclose(found[-1].sum(), part, rtol=2e-3)


def test_a_target_that_is_not_linear_promises_nothing(double):
  result = run(double.lm, double.ids, "embed", target=log_prob(" Paris"))
  assert np.isnan(result.expected[Site("embed")]).all()


def test_another_target_does_not_compile_again(double):
  run(double.lm, double.ids, "embed")
  before = contributions._cache_size()
  run(double.lm, double.ids, "embed", target=logit_difference(" a", " in"))
  assert contributions._cache_size() == before


@pytest.mark.real
def test_real_model_is_complete(real_lm):
  other = OtherPrompt("The capital of Italy is")
  result = run(real_lm, "The capital of France is", "embed", other)
  site = next(iter(result))
  mass = np.abs(np.asarray(result[site].data_array)).sum()
  assert result.expected[site][0] > 5
  assert abs(result.residual(site)[0]) < 1e-5 * mass
  assert abs(result.residual(site)[0]) < 1e-3
  scores = np.asarray(result.per_token(site).data_array)[0]
  assert scores.argmax() == 4  # France
