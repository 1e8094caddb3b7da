"""FLOPs of programs whose products can be counted by hand."""

import jax
import jax.numpy as jnp
import pytest

from gemma_scope.planning.flops import matmul_flops

A, B = jnp.ones((4, 8)), jnp.ones((8, 16))
ONE = 2 * 4 * 8 * 16


def looped(a, b):
  def body(carry, _):
    return carry + (a @ b).sum(), None

  return jax.lax.scan(body, 0.0, None, length=5)[0]


def chosen(a, b):
  return jax.lax.cond(a.sum() > 0, lambda: a @ b, lambda: 2 * (a @ b) + a @ b)


@pytest.mark.parametrize(
  ("f", "times"),
  [
    (lambda a, b: a @ b, 1),
    (lambda a, b: jnp.sin(a).sum() + b.sum(), 0),
    (jax.jit(lambda a, b: jax.nn.relu(a @ b)), 1),
    (looped, 5),
    (jax.checkpoint(lambda a, b: a @ b), 1),
    (chosen, 2),
    # A product and its two derivatives.
    (jax.grad(lambda a, b: ((a @ b) ** 2).sum(), argnums=(0, 1)), 3),
  ],
)
def test_products_are_counted(f, times):
  assert matmul_flops(jax.make_jaxpr(f)(A, B)) == times * ONE


def test_batched_products():
  a, b = jnp.ones((3, 4, 8)), jnp.ones((3, 8, 16))
  program = jax.make_jaxpr(lambda a, b: a @ b)(a, b)
  assert matmul_flops(program) == 3 * ONE
