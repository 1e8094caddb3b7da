"""Linearised functions: the value of one, the slope of the other."""

import jax
import jax.numpy as jnp
import numpy as np

from gemma_scope.attribution import lrp
from gemma_scope.attribution.objectives.protocol import linearised


def wavy(x):
  return jnp.sin(x).sum(axis=1) * x[:, 0]


def test_value_and_slope_are_the_functions():
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(3, 4)), jnp.float32)
  np.testing.assert_array_equal(linearised(wavy, x), wavy(x))
  found = jax.grad(lambda v: linearised(wavy, v).sum())(x)
  expected = jax.grad(lambda v: wavy(v).sum())(x)
  np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_no_rule_is_asked_for():
  """sin has no rule; as the target it needs none."""
  x = jnp.ones((2, 4))
  f = lrp.transform(lambda v: linearised(wavy, v).sum(), lrp.ATTN_LRP)
  expected = jax.grad(lambda v: wavy(v).sum())(x)
  np.testing.assert_allclose(jax.grad(f)(x), expected, rtol=1e-6)
