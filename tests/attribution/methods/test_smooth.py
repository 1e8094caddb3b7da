import numpy as np
import pytest

from gemma_scope import errors
from gemma_scope.activations.run import capture
from gemma_scope.attribution import gradients
from gemma_scope.attribution.attribute import attribute
from gemma_scope.attribution.methods.smooth import (
  SmoothGradOptions,
  noisy_gradient,
)
from gemma_scope.attribution.objectives import activation, function, logit
from gemma_scope.sites import Site


def run(lm, given, target, at="embed", **options):
  result = attribute(
    lm,
    given,
    target,
    method="smoothgrad",
    at=at,
    options=SmoothGradOptions(**options),
  )
  site = next(iter(result))
  return np.asarray(result[site].unwrap(*site.info.axes))


@pytest.mark.parametrize("at", ["embed", "z[1]", "pattern[0]"])
def test_without_noise_it_is_input_x_gradient(double, at):
  target = logit(" Paris")
  found = run(double.lm, double.ids, target, at, samples=3, noise=0.0)
  plain = attribute(
    double.lm, double.ids, target, method="input_x_gradient", at=at
  )
  site = next(iter(plain))
  expected = np.asarray(plain[site].unwrap(*site.info.axes))
  scale = np.abs(expected).max()
  np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5 * scale)


def sum_of_cubes(x):
  return (x**3).sum()


def test_noise_is_relative_to_the_site_and_normal(double):
  """The mean gradient of x^3 is 3 (x^2 + sigma^2)."""
  site, noise, samples = Site("embed"), 0.5, 4000
  x = double.site(site)
  sigma = noise * x.std()
  target = function(sum_of_cubes, [site])
  found = run(
    double.lm,
    double.ids,
    target,
    samples=samples,
    noise=noise,
    times_input=False,
  )[0]
  excess = found[-1] - 3 * x[-1] ** 2
  # One element's spread: 3 (2 x e + e^2) has variance 9 (4 x^2 s^2 + 2 s^4).
  spread = 3 * np.sqrt(4 * x[-1] ** 2 * sigma**2 + 2 * sigma**4)
  off = (excess - 3 * sigma**2) / (spread / np.sqrt(samples))
  assert np.abs(off).max() < 4.5
  assert 0.6 < off.std() < 1.5
  assert not found[:-1].any()  # the target reads the last token alone


def test_times_input_multiplies_with_the_value(double):
  target = logit(" Paris")
  plain = run(double.lm, double.ids, target, samples=5, times_input=False)
  times = run(double.lm, double.ids, target, samples=5)
  x = double.site(Site("embed"))
  np.testing.assert_allclose(times[0], plain[0] * x, rtol=1e-3, atol=1e-6)


def test_the_seed_decides_and_the_chunks_do_not(double, monkeypatch):
  def once(seed=0):
    return run(double.lm, double.ids, logit(" Paris"), samples=5, seed=seed)

  together = once()
  np.testing.assert_array_equal(once(), together)
  assert np.abs(once(seed=1) - together).max() > 1e-3
  monkeypatch.setattr(gradients, "STEP_TOKENS", 2 * len(double.ids))
  np.testing.assert_allclose(once(), together, rtol=1e-3, atol=1e-5)


def test_another_target_or_noise_does_not_compile_again(double):
  run(double.lm, double.ids, logit(" Paris"), samples=4)
  before = noisy_gradient._cache_size()
  run(double.lm, double.ids, logit(" Rome"), samples=4, noise=0.3, seed=7)
  assert noisy_gradient._cache_size() == before


def test_a_linear_target_is_its_own_direction(double):
  found = run(
    double.lm,
    double.ids,
    activation("embed", {"embedding": 3}),
    samples=2,
    noise=1.0,
    times_input=False,
  )
  expected = np.zeros_like(found)
  expected[0, -1, 3] = 1
  np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("bad", [{"samples": 0}, {"noise": -1.0}])
def test_bad_options_are_refused(double, bad):
  with pytest.raises(errors.ConfigError, match="at least one sample, and"):
    run(double.lm, double.ids, logit(" Paris"), **bad)


def test_values_come_from_the_prompt(double):
  acts = capture(double.lm, double.ids, ["embed"])
  x = np.asarray(acts["embed"].unwrap("batch", "seq", "embedding"))[0]
  np.testing.assert_allclose(x, double.site(Site("embed")), rtol=1e-5)
