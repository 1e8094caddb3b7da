"""Both methods against finite differences of a float64 second model."""

import numpy as np
import pytest

from gemma_scope import axes, errors
from gemma_scope.activations.tokens import to_tokens
from gemma_scope.attribution import gradients
from gemma_scope.attribution import relevance as engine
from gemma_scope.attribution.attribute import GradientOptions, attribute
from gemma_scope.attribution.objectives import logit, logit_difference
from gemma_scope.attribution.rows import to_rows
from gemma_scope.sites import Site, resolve

# Every kind of site: before, inside and behind the stack, attention and MLP.
SITES = (
  *("embed", "attn_in[1]", "query[1]", "key[0]", "value[1]", "pattern[0]"),
  *("z[1]", "attn_write[0]", "mlp_act[1]", "resid_post[:]", "final_norm"),
)


def relevance(result, site):
  """[...] the first row, in the order of the site's axes."""
  kept = [name for name in site.info.axes if name != axes.BATCH]
  return np.asarray(result[site].unwrap(axes.BATCH, *kept))[0]


def assert_is_derivative(found, slope_of, seed=0):
  """`found` dotted with random directions is the slope along them."""
  rng = np.random.default_rng(seed)
  for _ in range(3):
    direction = rng.standard_normal(found.shape)
    error = np.sum(found * direction) - slope_of(direction)
    assert abs(error) <= 2e-5 * np.linalg.norm(found)


def test_input_x_gradient_is_the_slope_at_every_kind_of_site(double):
  a, b = double.lm.tokenizer.encode(" Paris Rome", bos=False)
  result = attribute(
    double.lm,
    double.ids,
    logit_difference(a, b),
    method="input_x_gradient",
    at=SITES,
  )
  assert list(result) == list(resolve(SITES, 2))
  target = {a: 1.0, b: -1.0}
  np.testing.assert_allclose(result.target[0], double.value(target), rtol=1e-5)
  for site in result:
    found = relevance(result, site)
    assert np.linalg.norm(found) > 1e-3
    assert_is_derivative(
      found, lambda d, site=site: double.slope(target, site, d)
    )


def test_input_x_gradient_through_a_scan_and_a_global_layer(scanned):
  at = ("embed", "resid_mid[2]", "key[5]", "mlp_write[6]")
  target = logit(" Rome", position=4)
  result = attribute(
    scanned.lm, scanned.ids, target, method="input_x_gradient", at=at
  )
  weights = {scanned.lm.tokenizer.token_id(" Rome"): 1.0}
  for site in result:
    found = relevance(result, site)
    assert_is_derivative(
      found,
      lambda d, site=site: scanned.slope(weights, site, d, position=4),
    )
    if site.info.axes[1] == axes.SEQ:
      # What comes after the target's position cannot matter.
      assert not found[5:].any()


def slow_nodes(name, steps):
  """Quadrature written out: [(point, weight)]."""
  if name == "midpoint":
    return [((i + 0.5) / steps, 1 / steps) for i in range(steps)]
  if name == "trapezoid":
    inner = 1 / (steps - 1)
    ends = (0, steps - 1)
    return [
      (i * inner, inner / 2 if i in ends else inner) for i in range(steps)
    ]
  x, w = np.polynomial.legendre.leggauss(steps)
  return list(zip((x + 1) / 2, w / 2))


@pytest.mark.parametrize(
  ("site", "quadrature", "baseline"),
  [
    ("embed", "gauss_legendre", "zero"),
    ("resid_post[0]", "midpoint", np.linspace(-1, 1, 32)[None, None]),
    ("z[1]", "trapezoid", 0.1 * np.ones((1, 1, 4, 16))),
  ],
)
def test_integrated_gradients_are_a_loop_over_steps(
  double, site, quadrature, baseline
):
  steps = 5
  token = double.lm.tokenizer.token_id(" Paris")
  options = GradientOptions(steps, quadrature, baseline)
  result = attribute(
    double.lm, double.ids, logit(token), at=[site], options=options
  )
  (site,) = result
  origin = 0.0 if isinstance(baseline, str) else baseline[0]
  target = {token: 1.0}

  def slope(direction):
    return sum(
      weight * double.slope(target, site, direction, baseline=origin, at=point)
      for point, weight in slow_nodes(quadrature, steps)
    )

  assert_is_derivative(relevance(result, site), slope)
  bottom = double.value(target, {site: lambda x: 0 * x + origin})
  top = double.value(target)
  np.testing.assert_allclose(
    result.expected[site][0], top - bottom, rtol=1e-4, atol=1e-5
  )
  np.testing.assert_allclose(result.target[0], top, rtol=1e-5)


def test_points_near_the_baseline_are_exact(double):
  """A point there must not be what rounding leaves of a difference."""
  token = double.lm.tokenizer.token_id(" Paris")
  points = np.asarray([2e-6, 5e-6], np.float32)
  *_, found = gradients.integrated_gradients(
    double.lm.model,
    to_rows(to_tokens(double.lm, double.ids), -1),
    logit(token).resolve(double.lm),
    np.zeros((1, 1, 1), np.float32),
    (points, np.ones(2, np.float32) / 2),
    Site("embed"),
  )

  def slope(direction):
    return np.mean(
      [
        double.slope({token: 1.0}, Site("embed"), direction * a, at=a) / a
        for a in points.astype(float)
      ]
    )

  found = np.asarray(found.unwrap("batch", "seq", "embedding"))[0]
  assert_is_derivative(found, slope)


def test_completeness_residual_shrinks_with_steps(double):
  def residual(steps):
    options = GradientOptions(steps, baseline="mean")
    result = attribute(double.lm, double.ids, logit(" Paris"), options=options)
    return abs(result.residual()[0])

  few, some, many = map(residual, (2, 6, 18))
  assert few > 5 * some > 25 * many
  assert many < 1e-4


@pytest.mark.parametrize("name", gradients.QUADRATURES)
@pytest.mark.parametrize("steps", [2, 3, 20, 101])
def test_quadrature_weights_sum_to_one_and_integrate_lines(name, steps):
  points, weights = gradients.quadrature(name, steps)
  assert points.shape == weights.shape == (steps,)
  assert points.dtype == weights.dtype == np.float32
  assert 0 <= points.min() < points.max() <= 1
  assert (weights > 0).all()
  np.testing.assert_allclose(weights.sum(dtype=np.float64), 1, rtol=1e-6)
  line = (weights * (3 * points + 1)).sum(dtype=np.float64)
  np.testing.assert_allclose(line, 2.5, rtol=1e-6)


@pytest.mark.parametrize("steps", [1, 2, 3, 8])
def test_gauss_legendre_is_exact_for_polynomials(steps):
  points, weights = gradients.quadrature("gauss_legendre", steps)
  for degree in range(2 * steps):
    integral = (weights * points.astype(np.float64) ** degree).sum()
    np.testing.assert_allclose(integral, 1 / (degree + 1), rtol=1e-5)


def test_trapezoid_has_both_ends_and_midpoint_neither():
  points, weights = gradients.quadrature("trapezoid", 3)
  np.testing.assert_array_equal(points, [0, 0.5, 1])
  np.testing.assert_array_equal(weights, [0.25, 0.5, 0.25])
  points, _ = gradients.quadrature("midpoint", 2)
  np.testing.assert_array_equal(points, [0.25, 0.75])


@pytest.mark.parametrize(
  ("name", "steps"),
  [("simpson", 20), ("gauss_legendre", 0), ("trapezoid", 1), ("midpoint", 2.5)],
)
def test_unusable_quadrature_is_refused(name, steps):
  with pytest.raises(
    errors.ConfigError, match=f"quadrature='{name}', steps={steps}"
  ):
    gradients.quadrature(name, steps)


def test_steps_run_side_by_side_up_to_a_number_of_tokens(double, monkeypatch):
  batch = np.tile(double.ids, (2, 1))
  rows = to_rows(to_tokens(double.lm, batch), -1)
  monkeypatch.setattr(gradients, "STEP_TOKENS", 5 * batch.size)
  assert gradients.steps_at_once(rows, 20) == 5
  assert gradients.steps_at_once(rows, 3) == 3
  monkeypatch.setattr(gradients, "STEP_TOKENS", 1)
  assert gradients.steps_at_once(rows, 20) == 1


def test_steps_at_once_changes_no_number(double, monkeypatch):
  def run():
    options = GradientOptions(steps=6, baseline="mean")
    result = attribute(double.lm, double.ids, logit(" Paris"), options=options)
    return np.asarray(result["embed"].data_array)

  together = run()
  monkeypatch.setattr(gradients, "STEP_TOKENS", 2 * len(double.ids))
  np.testing.assert_allclose(run(), together, rtol=1e-4, atol=1e-6)


def test_ends_of_the_path_and_added_steps_have_no_weight(double, monkeypatch):
  """A gradient at zero overflows, and infinity times no weight is no number."""
  seen, real = [], gradients.path_gradient

  def spy(model, rows, target, ends, nodes, site):
    seen.append(nodes)
    return real(model, rows, target, ends, nodes, site)

  monkeypatch.setattr(gradients, "path_gradient", spy)
  monkeypatch.setattr(gradients, "STEP_TOKENS", 2 * len(double.ids))
  options = GradientOptions(steps=5, baseline="zero")
  found = attribute(double.lm, double.ids, logit(" Paris"), options=options)
  points, weights = (np.concatenate(part) for part in zip(*seen))
  expected = gradients.quadrature("gauss_legendre", 5)
  np.testing.assert_array_equal(points, [*expected[0], 0, 1, 1])
  np.testing.assert_array_equal(weights, [*expected[1], 0, 0, 0])
  assert np.isfinite(np.asarray(found["embed"].data_array)).all()
  plain = attribute(
    double.lm, double.ids, logit(" Paris"), method="input_x_gradient"
  )
  np.testing.assert_allclose(found.target, plain.target, rtol=1e-5)


def test_another_target_or_prompt_does_not_compile_again(double):
  lm = double.lm
  methods = {
    "input_x_gradient": engine.relevance,
    "integrated_gradients": gradients.path_gradient,
  }
  options = {"integrated_gradients": GradientOptions(2, baseline="mean")}
  for method, function in methods.items():

    def run(text, target, method=method):
      attribute(lm, text, target, method=method, options=options.get(method))

    run(" the capital", logit_difference(" Paris", " Rome"))
    before = function._cache_size()
    assert before > 0
    run(" the capital", logit_difference(" John", " Mary"))
    run(" the city of", logit_difference(" gave", " a", position=1))
    assert function._cache_size() == before
