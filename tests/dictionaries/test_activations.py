"""The five activations: strict thresholds, and what they refuse.

Their values are tested against the oracle in test_family.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gemma_scope.dictionaries import activations
from gemma_scope.errors import ConfigError

ZERO = jnp.zeros(4)


def test_jump_relu_is_strict_and_clamps():
  jump = activations.jump_relu(jnp.asarray([1.0, 1.0, -1.0, 0.0]))
  p = jnp.asarray([[1.0, 1.0000001, -0.5, 0.0]])
  expected = np.asarray([[0, 1.0000001, 0, 0]], np.float32)
  np.testing.assert_array_equal(jump(p, ZERO), expected)


def test_jump_relu_passes_no_gradient_to_its_threshold():
  jump = activations.jump_relu(jnp.full(4, 0.5))
  p = jnp.asarray([[0.4, 0.6, -1.0, 2.0]])
  by_threshold = jax.grad(lambda a: a(p, ZERO).sum())(jump)
  assert not np.asarray(by_threshold.threshold.data_array).any()
  by_value = jax.grad(lambda v: jump(v, ZERO).sum())(p)
  np.testing.assert_array_equal(by_value, [[0, 1, 0, 1]])


def test_relu_is_jump_relu_at_zero():
  p = jnp.asarray([[-1.0, 0.0, 1e-30, 3.0]])
  jump = activations.jump_relu(ZERO)
  np.testing.assert_array_equal(jump(p, ZERO), activations.Relu()(p, ZERO))


def test_trained_batch_top_k_becomes_a_threshold():
  jump = activations.batch_top_k_to_jump_relu(0.7, 4)
  p = jnp.asarray([[0.7, 0.71, 0.0, -3.0]])
  np.testing.assert_array_equal(
    jump(p, ZERO) != 0, [[False, True, False, False]]
  )


@pytest.mark.parametrize("kind", [activations.TopK, activations.BatchTopK])
@pytest.mark.parametrize("k", [0, -3, 2.0, True, None])
def test_k_is_a_whole_number(kind, k):
  with pytest.raises(ConfigError, match="at least one"):
    kind(k)


def test_names():
  for name, kind in activations.ACTIVATIONS.items():
    if name in ("top_k", "batch_top_k"):
      assert activations.name_of(kind(3)) == name
  assert activations.name_of(activations.Relu()) == "relu"
