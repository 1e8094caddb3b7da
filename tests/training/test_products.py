"""Rounded products."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gemma_scope.training.config import PRECISIONS
from gemma_scope.training.products import matmul

A = jax.random.normal(jax.random.key(0), (8, 5))
B = jax.random.normal(jax.random.key(1), (5, 7))
C = jax.random.normal(jax.random.key(2), (8, 7))


def rounded(x, precision):
  x = np.asarray(x)
  if precision == "bfloat16":
    x = np.asarray(jnp.asarray(x).astype(jnp.bfloat16)).astype(np.float64)
  return x.astype(np.float64)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_products_and_gradients(precision):
  a, b, c = (rounded(x, precision) for x in (A, B, C))
  y, back = jax.vjp(lambda a, b: matmul(a, b, precision), A, B)
  da, db = back(C)
  assert y.dtype == da.dtype == db.dtype == jnp.float32
  for found, expected in ((y, a @ b), (da, c @ b.T), (db, a.T @ c)):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_side_by_side():
  a, b = jnp.stack([A, 2 * A]), jnp.stack([B, B])
  y = jax.vmap(lambda a, b: matmul(a, b, "float32"))(a, b)
  np.testing.assert_allclose(y[1], 2 * (A @ B), rtol=1e-5, atol=1e-5)
