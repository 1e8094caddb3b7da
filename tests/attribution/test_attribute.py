"""The entrance: what every method promises, and what is refused."""

import jax.numpy as jnp
import numpy as np
import pytest

import gemma_scope as gs
from gemma_scope import axes, errors
from gemma_scope.activations.run import capture
from gemma_scope.attribution.attribute import (
  METHODS,
  GradientOptions,
  attribute,
)
from gemma_scope.attribution.objectives import logit, logit_difference

# Few steps: these tests are about rows, axes and padding.
OPTIONS = {
  "integrated_gradients": GradientOptions(3, "midpoint", "zero"),
  "smoothgrad": gs.attribution.SmoothGradOptions(samples=3),
  "expected_gradients": gs.attribution.ExpectedGradientsOptions(samples=3),
  "occlusion": gs.attribution.OcclusionOptions(window=3, stride=2),
}
AT = ("embed", "pattern[1]", "mlp_act[0]", "final_norm")
LONG, SHORT = " Mary and John gave a drink to Mary in", " the capital of"

methods = pytest.mark.parametrize("method", METHODS)


# They compile once a site.
ONE_BY_ONE = (
  *("integrated_gradients", "smoothgrad", "expected_gradients", "deeplift"),
  "occlusion",
)


def sites_of(method):
  """Few for what compiles; some tables hold patterns constant."""
  if method in ONE_BY_ONE:
    return ("pattern[1]", "embed")
  if method == "leave_one_out":
    return ("embed",)
  if method in ("cp_lrp", "lrp_epsilon", "lrp_gamma"):
    return tuple(site for site in AT if "pattern" not in site)
  return AT


@methods
def test_rows_do_not_know_of_each_other(double, method):
  target = logit_difference(" Paris", " Rome", position=-2)

  def run(texts):
    return attribute(
      double.lm,
      texts,
      target,
      method=method,
      at=sites_of(method),
      options=OPTIONS.get(method),
    )

  both = run([LONG, SHORT])
  for i, text in enumerate((LONG, SHORT)):
    alone = run(text)
    n = alone.tokens.width
    np.testing.assert_allclose(both.target[i], alone.target[0], rtol=1e-5)
    for site in alone:
      expected = np.asarray(alone[site].unwrap(*site.info.axes))[0]
      found = np.asarray(both[site].unwrap(*site.info.axes))[i]
      names = site.info.axes[1:]
      places = (axes.SEQ, axes.KV_SEQ)
      inside = tuple(slice(n) if a in places else slice(None) for a in names)
      scale = np.abs(expected).max()
      assert scale > 1e-4
      np.testing.assert_allclose(
        found[inside], expected, rtol=1e-3, atol=1e-5 * scale
      )
      # Relevance of padding is zero to the last bit.
      outside = np.ones(found.shape, bool)
      outside[inside] = False
      assert not found[outside].any()
      np.testing.assert_allclose(
        both.expected[site][i], alone.expected[site][0], rtol=1e-4
      )
  assert both.pieces == tuple(
    tuple(double.lm.tokenizer.pieces(double.lm.tokenizer.encode(t)))
    for t in (LONG, SHORT)
  )


@methods
def test_relevance_has_the_axes_of_its_site(double, method):
  at = sites_of(method)
  result = attribute(
    double.lm,
    SHORT,
    logit(" Paris"),
    method=method,
    at=at,
    options=OPTIONS.get(method),
  )
  acts = capture(double.lm, SHORT, at)
  assert list(result) == list(acts)
  for site, value in result.items():
    assert dict(value.named_axes) == dict(acts[site].named_axes)
    assert value.dtype == jnp.float32
  logits = capture(double.lm, SHORT, ["logits"], logits_at=-1)["logits"]
  token = double.lm.tokenizer.token_id(" Paris")
  expected = np.asarray(logits.data_array)[:, 0, token]
  np.testing.assert_allclose(result.target, expected, rtol=1e-5)
  assert result.method == method


def test_integration_promises_a_sum_and_a_slope_does_not(double):
  target = logit(" Paris")
  ids = double.ids
  local = attribute(double.lm, ids, target, method="input_x_gradient")
  assert np.isnan(local.expected[next(iter(local))]).all()
  options = OPTIONS["integrated_gradients"]
  path = attribute(double.lm, ids, target, at="embed", options=options)
  assert path.method == "integrated_gradients"
  assert np.isfinite(path.residual()).all()


@pytest.mark.parametrize(
  ("changes", "error", "match"),
  [
    (
      {"method": "integrated_gradient"},
      errors.ConfigError,
      r"no such attribution method.*\n.*\n.*method='integrated_gradients'",
    ),
    ({"method": "magic"}, errors.ConfigError, "received: method='magic'"),
    ({"at": []}, errors.SiteError, "no site to attribute to"),
    ({"at": ["logits"]}, errors.SiteError, "what is explained, not what"),
    ({"at": ["resid_post[2]"]}, errors.SiteError, "The model has 2 layers"),
    ({"at": ["residual"]}, errors.SiteError, "received: residual"),
    ({"target": logit("Paris Rome")}, errors.TextError, "exactly one token"),
    ({"target": logit(512)}, errors.TextError, "512"),
    (
      {"target": logit(" Paris", position=6)},
      errors.TextError,
      r"no token at the target's position.*\n.*position 6, prompts of \[6\]",
    ),
    ({"given": ""}, errors.TextError, "The prompt is empty"),
    (
      {"options": GradientOptions(baseline="blur")},
      errors.ConfigError,
      "received: baseline='blur' at embed",
    ),
    (
      {"options": GradientOptions(baseline="pad"), "at": ["z[0]"]},
      errors.ConfigError,
      r"received: baseline='pad' at z\[0\]",
    ),
    (
      {"options": GradientOptions(baseline=np.zeros((1, 5, 32)))},
      errors.ConfigError,
      "axes batch 1, seq 6, embedding 32",
    ),
    (
      {"options": GradientOptions(steps=0)},
      errors.ConfigError,
      "steps=0",
    ),
    (
      {"options": GradientOptions(quadrature="simpson")},
      errors.ConfigError,
      "one of gauss_legendre, midpoint, trapezoid",
    ),
  ],
)
def test_bad_input_is_refused(double, changes, error, match):
  arguments = {"given": double.ids, "target": logit(" Paris"), **changes}
  given, target = arguments.pop("given"), arguments.pop("target")
  with pytest.raises(error, match=match):
    attribute(double.lm, given, target, **arguments)
