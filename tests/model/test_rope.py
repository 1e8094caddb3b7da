"""Rotary positions: against complex numbers, and their one property."""

import jax.numpy as jnp
import numpy as np
import pytest

from gemma_scope.model.rope import rotate, rotation
from gemma_scope.testing import oracle


def heads(seq, width, seed=0):
  rng = np.random.default_rng(seed)
  return rng.standard_normal((1, seq, 2, width)).astype(np.float32)


@pytest.mark.parametrize(("base", "factor"), [(1e4, 1.0), (1e6, 8.0)])
def test_it_equals_the_oracle(base, factor):
  x = heads(50, 16)
  by = rotation(jnp.arange(50)[None], 16, base, factor)
  found = rotate(x, by)
  for head in range(2):
    expected = oracle.rope(x[0, :, head].astype(np.float64), base, factor)
    np.testing.assert_allclose(found[0, :, head], expected, atol=2e-5)


def test_position_zero_turns_nothing():
  x = heads(3, 8)
  found = rotate(x, rotation(jnp.zeros((1, 3), jnp.int32), 8, 1e4, 1.0))
  np.testing.assert_array_equal(found, x)


def test_products_depend_on_the_distance_only():
  q, k = heads(1, 32, seed=1), heads(1, 32, seed=2)

  def product(i, j):
    turned = [
      rotate(x, rotation(jnp.array([[p]]), 32, 1e4, 1.0))[0, 0, 0]
      for x, p in ((q, i), (k, j))
    ]
    return float(jnp.vdot(*turned))

  assert product(7, 3) == pytest.approx(product(104, 100), abs=1e-4)
  assert product(7, 3) != pytest.approx(product(3, 7), abs=1e-2)


def test_frequencies_are_rounded_once():
  """A unit in the last place is 1e-2 of a radian at position 100,000."""
  position = 100_000
  by = rotation(jnp.array([[position]]), 256, 1e6, 8.0)
  exact = 1 / (1e6 ** (np.arange(0, 256, 2) / 256)).astype(np.float32) / 8
  angle = np.float32(position) * exact.astype(np.float32)
  np.testing.assert_allclose(by.cos[0, 0], np.cos(angle), atol=1e-6)
  np.testing.assert_allclose(by.sin[0, 0], np.sin(angle), atol=1e-6)


def test_angles_stay_float32_for_bfloat16_heads():
  x = heads(600, 8)
  by = rotation(jnp.arange(600)[None], 8, 1e4, 1.0)
  assert by.cos.dtype == by.sin.dtype == jnp.float32
  rounded = x.astype(jnp.bfloat16)
  found = rotate(rounded, by)
  assert found.dtype == jnp.bfloat16
  exact = rotate(rounded.astype(np.float32), by)
  np.testing.assert_array_equal(found, exact.astype(jnp.bfloat16))
