"""Pseudo-derivatives against the closed forms of the paper."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gemma_scope.training.straight_through import counted, jump_relu

WIDTH = jnp.float32(0.3)
Z = jax.random.normal(jax.random.key(0), (40, 6))
THRESHOLD = jnp.asarray([0.0, 0.05, 0.2, 0.5, 1.0, 3.0])


def kernel():
  """K((z - t) / w) of "Jumping Ahead": a rectangle."""
  u = (np.asarray(Z) - np.asarray(THRESHOLD)) / float(WIDTH)
  return ((u > -0.5) & (u < 0.5)).astype(np.float64)


def test_values_are_those_of_the_dictionary():
  from gemma_scope.dictionaries.activations import jump_relu as activation

  found = jump_relu(Z, THRESHOLD, WIDTH)
  expected = activation(THRESHOLD)(Z, jnp.zeros(6))
  np.testing.assert_array_equal(found.latents, expected)
  np.testing.assert_array_equal(
    found.per_row, np.count_nonzero(expected, axis=1)
  )
  np.testing.assert_allclose(
    found.frequency, np.count_nonzero(expected, axis=0) / 40, rtol=1e-6
  )


def test_derivative_of_latents():
  weight = jax.random.normal(jax.random.key(1), Z.shape)

  def value(z, t):
    return (weight * jump_relu(z, t, WIDTH).latents).sum()

  dz, dt = jax.grad(value, (0, 1))(Z, THRESHOLD)
  t, w = np.asarray(THRESHOLD, np.float64), float(WIDTH)
  np.testing.assert_allclose(
    dt, (-t / w * kernel() * np.asarray(weight)).sum(0), rtol=1e-5, atol=1e-6
  )
  np.testing.assert_array_equal(dz, np.where(THRESHOLD[None] < Z, weight, 0))


def test_derivative_of_the_number_of_active_latents():
  per_row = jnp.linspace(-1, 1, 40)
  per_latent = jnp.linspace(2, 3, 6)

  def value(z, t):
    active = jump_relu(z, t, WIDTH)
    counts = (per_row * active.per_row).sum()
    return counts + (per_latent * active.frequency).sum()

  dz, dt = jax.grad(value, (0, 1))(Z, THRESHOLD)
  slope = np.asarray(per_row)[:, None] + np.asarray(per_latent)[None] / 40
  expected = (-slope / float(WIDTH) * kernel()).sum(0)
  np.testing.assert_allclose(dt, expected, rtol=1e-4, atol=1e-5)
  np.testing.assert_array_equal(dz, np.zeros_like(Z))


def test_derivative_is_that_of_a_smoothed_expectation():
  """On many rows the estimator is the derivative of the expected loss."""
  z = jax.random.uniform(jax.random.key(2), (400_000, 1))
  t = jnp.asarray([0.4])

  def loss(t):
    active = jump_relu(z, t, jnp.float32(0.1))
    return (active.latents**2).sum(axis=1).mean() - 2 * active.per_row.mean()

  # E[z^2 H(z - t)] = (1 - t^3) / 3 and E[H(z - t)] = 1 - t, z uniform.
  (found,) = jax.grad(loss)(t)
  expected = -(0.4**2) + 2
  assert found == pytest.approx(expected, rel=0.02)


def test_counts_without_derivatives():
  f = jnp.asarray([[1.0, 0.0, 2.0], [0.0, 0.0, 3.0]])
  found = counted(f)
  np.testing.assert_array_equal(found.per_row, [2, 1])
  np.testing.assert_allclose(found.frequency, [0.5, 0, 1])
  slope = jax.grad(lambda f: counted(f).per_row.sum())(f)
  np.testing.assert_array_equal(slope, np.zeros((2, 3)))
