import numpy as np
import pytest

from gemma_scope import errors
from gemma_scope.attribution import gradients
from gemma_scope.attribution.attribute import GradientOptions, attribute
from gemma_scope.attribution.baselines import OtherPrompt
from gemma_scope.attribution.methods.expected import (
  ExpectedGradientsOptions,
  draws,
  sampled_gradient,
)
from gemma_scope.attribution.objectives import function, logit
from gemma_scope.sites import Site

SITE = Site("embed")


def run(lm, given, target, **options):
  return attribute(
    lm,
    given,
    target,
    method="expected_gradients",
    options=ExpectedGradientsOptions(**options),
  )


def test_draws_go_round_before_they_repeat():
  chosen, points = draws(background=3, samples=8, seed=0)
  assert chosen.shape == points.shape == (8,)
  for first in (0, 3):
    assert sorted(chosen[first : first + 3]) == [0, 1, 2]
  assert ((points >= 0) & (points < 1)).all()
  assert (draws(3, 8, 1)[1] != points).any()


def test_one_baseline_is_an_integral_by_chance(double):
  """The sum over points drawn is the same sum written out."""
  lm = double.lm
  other = lm.tokenizer.encode(" the city of Rome is")
  token = lm.tokenizer.token_id(" Paris")
  result = run(
    lm, double.ids, logit(token), background=[other], samples=5, seed=3
  )
  start = double.site(SITE, ids=np.asarray(other))
  _, points = draws(1, 5, 3)
  rng = np.random.default_rng(0)
  found = np.asarray(result[SITE].data_array)[0]
  for _ in range(3):
    direction = rng.standard_normal(found.shape)
    expected = np.mean(
      [
        double.slope({token: 1.0}, SITE, direction, baseline=start, at=float(a))
        for a in points
      ]
    )
    error = np.sum(found * direction) - expected
    assert abs(error) <= 2e-5 * np.linalg.norm(found)
  integral = attribute(
    lm,
    double.ids,
    logit(token),
    options=GradientOptions(baseline=OtherPrompt(other)),
  )
  np.testing.assert_allclose(
    result.expected[SITE], integral.expected[SITE], rtol=1e-4
  )


def sum_of_squares(x):
  return (x**2).sum()


def test_the_expectation_on_a_quadratic(double):
  """E (x - b) 2 (b + a (x - b)) is the mean of x^2 - b^2 over baselines."""
  rng = np.random.default_rng(0)
  background = rng.standard_normal((4, 32)).astype(np.float32)
  target = function(sum_of_squares, [SITE])
  samples = 4000
  result = run(
    double.lm, double.ids, target, background=background, samples=samples
  )
  found = np.asarray(result[SITE].data_array)[0, -1]
  x = double.site(SITE)[-1]
  expected = (x**2 - background**2).mean(axis=0)
  # Var over a of 2 (x - b) (b + a (x - b)) is (x - b)^4 / 3; b goes round.
  deviation = np.sqrt(((x - background) ** 4 / 3).mean(0) / samples)
  assert np.abs((found - expected) / deviation).max() < 4.5
  np.testing.assert_allclose(
    result.expected[SITE][0], expected.sum(), rtol=1e-4
  )
  # The residual is the sampling error, and no more.
  spread = np.sqrt(((x - background) ** 2).sum(1).mean() ** 2 / 3 / samples)
  assert 0 < abs(result.residual()[0]) < 4.5 * spread


def test_the_seed_decides_and_the_chunks_do_not(double, monkeypatch):
  def once(seed=0):
    result = run(double.lm, double.ids, logit(" Paris"), samples=5, seed=seed)
    return np.asarray(result[SITE].data_array)

  together = once()
  np.testing.assert_array_equal(once(), together)
  assert np.abs(once(seed=1) - together).max() > 1e-3
  monkeypatch.setattr(gradients, "STEP_TOKENS", 2 * len(double.ids))
  np.testing.assert_allclose(once(), together, rtol=1e-3, atol=1e-5)


def test_another_target_does_not_compile_again(double):
  run(double.lm, double.ids, logit(" Paris"), samples=4)
  before = sampled_gradient._cache_size()
  run(double.lm, double.ids, logit(" Rome"), samples=4, seed=5)
  assert sampled_gradient._cache_size() == before


def test_no_samples_are_refused(double):
  with pytest.raises(errors.ConfigError, match="samples=0"):
    run(double.lm, double.ids, logit(" Paris"), samples=0)
