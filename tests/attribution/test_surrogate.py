"""One value, another derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gemma_scope.attribution.surrogate import ratio, same_value, stabilise
from tests.attribution.checks import assert_same_bits


def test_the_value_is_kept_and_the_derivative_is_the_surrogates():
  x = jnp.array([1.5, -2.0, 0.0])
  value, gradient = jax.value_and_grad(
    lambda x: same_value(jnp.sin(x), 3 * x).sum()
  )(x)
  assert_same_bits(value, jnp.sin(x).sum())
  np.testing.assert_array_equal(gradient, [3, 3, 3])


def test_the_value_passes_no_derivative_of_its_own():
  x = jnp.arange(3.0)
  gradient = jax.grad(lambda x: same_value(x**2, jnp.ones(3)).sum())(x)
  np.testing.assert_array_equal(gradient, [0, 0, 0])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_it_composes_with_jit_vmap_jvp_and_scan(dtype):
  x = jnp.linspace(-2, 2, 5).astype(dtype)

  def f(x):
    return same_value(jnp.tanh(x), x * x)

  assert_same_bits(jax.jit(jax.vmap(f))(x), jax.jit(jnp.tanh)(x))
  _, tangent = jax.jvp(jax.vmap(f), (x,), (jnp.ones_like(x),))
  assert_same_bits(tangent, 2 * x)

  def summed(x):
    return jax.lax.scan(lambda c, row: (c + f(row), None), 0 * x[0], x)[0]

  assert_same_bits(jax.grad(summed)(x), 2 * x)


def test_stabilise_moves_away_from_zero():
  z = jnp.array([2.0, -2.0, 0.0, -0.0, 1e-12, -1e-12])
  expected = [2.5, -2.5, 0.5, 0.5, 0.5, -0.5]
  np.testing.assert_allclose(stabilise(z, 0.5), expected)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_a_ratio_with_zero_is_finite_in_every_dtype(dtype):
  zero = jnp.zeros(3, dtype)
  assert stabilise(zero, 1e-9).dtype == dtype
  np.testing.assert_array_equal(ratio(zero, zero, 1e-9), [0, 0, 0])
  small = jnp.array([-1e-7, 1e-7], dtype)
  assert np.isfinite(np.asarray(ratio(small, 0 * small, 1e-6), float)).all()


def test_a_ratio_is_held_constant():
  gradient = jax.grad(lambda x: (x * ratio(x, x + 1, 0.0)).sum())(jnp.ones(2))
  np.testing.assert_allclose(gradient, [0.5, 0.5])
