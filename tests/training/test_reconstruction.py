"""Prefix reconstructions against one product for each prefix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gemma_scope.training.reconstruction import by_prefix

F = jax.random.normal(jax.random.key(0), (9, 12))
W = jax.random.normal(jax.random.key(1), (12, 5))


def oracle(f, w, sizes):
  return jnp.stack([f[:, :s] @ w[:s] for s in sizes])


@pytest.mark.parametrize("sizes", [(12,), (3, 12), (1, 2, 7, 12)])
def test_values_and_gradients(sizes):
  weight = jax.random.normal(jax.random.key(2), (len(sizes), 9, 5))
  found, back = jax.vjp(lambda f, w: by_prefix(f, w, sizes, "float32"), F, W)
  expected, oracle_back = jax.vjp(lambda f, w: oracle(f, w, sizes), F, W)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
  for a, b in zip(back(weight), oracle_back(weight)):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_no_prefix_costs_a_product_of_its_own():
  """As many multiplications as the whole dictionary alone."""

  def flops(sizes):
    run = jax.jit(
      jax.grad(lambda f, w: by_prefix(f, w, sizes, "float32").sum(), (0, 1))
    )
    return run.lower(F, W).compile().cost_analysis()["flops"]

  assert flops((3, 6, 12)) < 1.4 * flops((12,))
