"""GeGLU: the equation, in float32, through its site."""

import jax.numpy as jnp
import numpy as np
from penzai import pz

from gemma_scope.model.feedforward import FeedForward, gelu_times
from gemma_scope.model.linear import Linear
from gemma_scope.model.site_layer import SiteLayer
from gemma_scope.testing import oracle

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 3, 8)).astype(np.float32)
GATE_UP = RNG.normal(size=(8, 2, 12)).astype(np.float32)
DOWN = RNG.normal(size=(12, 8)).astype(np.float32)


def build():
  named = pz.nx.wrap(jnp.asarray(GATE_UP), "embedding", "gate_up", "neurons")
  return FeedForward(
    gate_up=Linear(named, ("embedding",)),
    mlp_act=SiteLayer("mlp_act"),
    down=Linear(
      pz.nx.wrap(jnp.asarray(DOWN), "neurons", "embedding"), ("neurons",)
    ),
  )


def test_it_equals_the_equation():
  x = pz.nx.wrap(jnp.asarray(X), "batch", "seq", "embedding")
  found = build()(x).unwrap("batch", "seq", "embedding")
  gate, up = (X.astype(np.float64) @ GATE_UP[:, i] for i in range(2))
  expected = (oracle.gelu(gate) * up) @ DOWN
  np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_gate_is_the_first_of_the_two():
  both = jnp.asarray([[[-30.0], [2.0]], [[2.0], [-30.0]]])
  found = gelu_times(both)[:, 0]
  np.testing.assert_allclose(found, [0, -30 * oracle.gelu(2.0)], rtol=1e-6)


def test_bfloat16_is_rounded_at_the_end_only():
  both = jnp.asarray(RNG.normal(size=(50, 2, 4)), jnp.bfloat16)
  found = gelu_times(both)
  assert found.dtype == jnp.bfloat16
  exact = gelu_times(both.astype(jnp.float32)).astype(jnp.bfloat16)
  np.testing.assert_array_equal(found, exact)
