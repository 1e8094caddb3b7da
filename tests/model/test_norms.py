"""RMSNorm: the equation, over the axis its scale names, in float32."""

import jax.numpy as jnp
import numpy as np
from penzai import pz
import pytest

from gemma_scope.model import norms
from gemma_scope.testing import oracle

RNG = np.random.default_rng(0)
X = RNG.normal(0, 30, (3, 5, 16)).astype(np.float32)
SCALE = RNG.normal(0, 0.5, 16).astype(np.float32)


def test_it_equals_the_oracle():
  expected = oracle.rms_norm(X.astype(np.float64), SCALE)
  found = norms.rms_norm(jnp.asarray(X), jnp.asarray(SCALE), 1e-6)
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_epsilon_is_added_to_the_mean_square():
  tiny = jnp.full((1, 4), 1e-3)
  inverse = norms.inverse_rms(tiny, 1e-6)
  np.testing.assert_allclose(inverse, [[2e-6**-0.5]], rtol=1e-6)
  zero = norms.rms_norm(jnp.zeros((2, 4)), jnp.zeros(4), 1e-6)
  np.testing.assert_array_equal(zero, np.zeros((2, 4)))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_it_normalises_the_axis_that_the_scale_names(order):
  names = ("batch", "seq", "embedding")
  layer = norms.RMSNorm(pz.nx.wrap(jnp.asarray(SCALE), "embedding"), 1e-6)
  value = pz.nx.wrap(
    jnp.asarray(X.transpose(order)), *[names[i] for i in order]
  )
  found = layer(value).unwrap(*names)
  expected = oracle.rms_norm(X.astype(np.float64), SCALE)
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_bfloat16_is_rounded_at_the_end_only():
  x = jnp.asarray(X, jnp.bfloat16)
  scale = jnp.asarray(SCALE, jnp.bfloat16)
  found = norms.rms_norm(x, scale, 1e-6)
  assert found.dtype == jnp.bfloat16
  exact = norms.rms_norm(x.astype(jnp.float32), scale.astype(jnp.float32), 1e-6)
  np.testing.assert_array_equal(found, exact.astype(jnp.bfloat16))
