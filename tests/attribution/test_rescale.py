"""The rescale rule's slopes, against their equations in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gemma_scope.attribution import composites
from gemma_scope.attribution.rescale import REFERENCE, Rescale
from gemma_scope.attribution.transform import transform
from gemma_scope.errors import ConfigError

RULE = Rescale()


def slopes(f, *pairs):
  """d f / d x of the first run, for x of both runs."""
  run = jax.vmap(f, axis_name=REFERENCE)
  stacked = [jnp.stack([jnp.float32(a), jnp.float32(b)]) for a, b in pairs]
  gradients = jax.grad(
    lambda *s: run(*s)[0].sum(), argnums=tuple(range(len(pairs)))
  )(*stacked)
  return [np.asarray(g[0]) for g in gradients]


def test_unary_is_the_slope_between_the_runs():
  x, x0 = np.asarray([2.0, -1.0, 0.5]), np.asarray([0.0, 3.0, 0.5])
  (found,) = slopes(lambda v: RULE.function(jnp.tanh, v, jnp.tanh(v)), (x, x0))
  expected = (np.tanh(x[:2]) - np.tanh(x0[:2])) / (x[:2] - x0[:2])
  np.testing.assert_allclose(found[:2], expected, rtol=1e-5)
  np.testing.assert_allclose(found[2], 1 - np.tanh(0.5) ** 2, rtol=1e-5)


def test_nearly_equal_values_take_the_derivative_between_them():
  x0 = np.linspace(0.5, 3, 9)
  x = x0 * (1 + 3e-7)  # a quotient of differences would be rounding alone
  (found,) = slopes(lambda v: RULE.function(jnp.tanh, v, jnp.tanh(v)), (x, x0))
  np.testing.assert_allclose(found, 1 - np.tanh(x0) ** 2, rtol=1e-4)


def test_product_shares_by_both_orders():
  a, a0, b, b0 = (np.asarray(v) for v in ([2.0], [5.0], [-1.0], [4.0]))
  f = lambda x, y: RULE.multiply(jnp.multiply, x, y, x * y)  # noqa: E731
  of_a, of_b = slopes(f, (a, a0), (b, b0))
  assert of_a == (-1 + 4) / 2
  assert of_b == (2 + 5) / 2


def test_binary_shares_by_both_orders():
  a, a0, b, b0 = 2.0, 5.0, 1.5, 4.0
  f = lambda x, y: RULE.binary(jnp.divide, x, y, x / y)  # noqa: E731
  of_a, of_b = slopes(f, (a, a0), (b, b0))
  share_a = ((a / b - a0 / b) + (a / b0 - a0 / b0)) / 2
  share_b = ((a / b - a / b0) + (a0 / b - a0 / b0)) / 2
  np.testing.assert_allclose(of_a, share_a / (a - a0), rtol=1e-5)
  np.testing.assert_allclose(of_b, share_b / (b - b0), rtol=1e-5)


@pytest.mark.parametrize("shift", [0.0, 7.0])
@pytest.mark.parametrize("scale", [0.04, 1.0, 30.0])  # nearly equal to one-hot
def test_softmax_is_its_derivative_with_logarithmic_means(shift, scale):
  rng = np.random.default_rng(0)
  x, x0 = rng.standard_normal((2, 6)) * scale
  weights = rng.standard_normal(6)

  def softmax(v):
    e = np.exp(v - v.max())
    return e / e.sum()

  p, p0 = softmax(x), softmax(x0)
  mean = (p - p0) / (np.log(p) - np.log(p0))
  jacobian = np.diag(mean) - np.outer(mean, mean) / mean.sum()
  expected = weights @ jacobian

  def f(v):
    e = jnp.exp(v - jax.lax.stop_gradient(v.max()))
    total = e.sum(keepdims=True)
    shifted = v - jax.lax.stop_gradient(v.max())
    y = RULE.softmax(shifted, total, e / total, (0,))
    return y * jnp.float32(weights)

  (found,) = slopes(f, (x + shift, x0))
  size = np.abs(expected).max()
  np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5 * size)
  change = found @ (x - x0) - weights @ (p - p0)
  assert abs(change) < 1e-5 * np.abs(weights).sum()


def test_one_run_alone_is_refused():
  f = transform(lambda x: jnp.tanh(x).sum(), composites.DEEPLIFT)
  with pytest.raises(
    ConfigError, match=r"compares two runs.*\n.*\n.*deep_lift\(f, x, reference"
  ):
    jax.grad(f)(jnp.ones(3))
