"""Matrix products whose operands are rounded, forwards and backwards alike.

    c = round(a) @ round(b)     da = round(dc) @ round(b)^T
                                db = round(a)^T @ round(dc)

All three are added up, and returned, in float32. Left to itself, JAX would
round the gradients of bfloat16 operands to bfloat16 once more, and XLA on a CPU
would read an operand against its layout, at half the speed: here the smaller
operand is turned around beforehand.
"""

import functools
from typing import cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def matmul(
  a: Float[Array, "m k"], b: Float[Array, "k n"], precision: str
) -> Float[Array, "m n"]:
  """The product a @ b, float32.

  Args:
    a: float32.
    b: float32.
    precision: One of `config.PRECISIONS`.
  """
  return cast(Array, _matmul(a, b, precision))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _matmul(a: Array, b: Array, precision: str) -> Array:
  return _product(a, b, precision)


def transposed_matmul(
  a: Float[Array, "k m"], b: Float[Array, "k n"], precision: str
) -> Float[Array, "m n"]:
  """The product a^T @ b, float32; no derivative of its own is defined.

  Args:
    a: float32.
    b: float32.
    precision: One of `config.PRECISIONS`.
  """
  if a.shape[1] <= b.shape[1]:
    return _product(turned(a), b, precision)
  found = _product(turned(b), a, precision)
  return jax.lax.optimization_barrier(found).T


def turned(a: Float[Array, "m n"]) -> Float[Array, "n m"]:
  """The transpose, in memory: without the barrier it melts into the product."""
  return jax.lax.optimization_barrier(a.T)


def _product(
  a: Float[Array, "m k"], b: Float[Array, "k n"], precision: str
) -> Float[Array, "m n"]:
  if precision == "bfloat16":
    a, b = a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)
  exact = precision == "float32"
  return jax.lax.dot_general(
    a,
    b,
    (((1,), (0,)), ((), ())),
    precision=jax.lax.Precision.HIGHEST if exact else None,
    preferred_element_type=jnp.float32,
  )


def _forward(a: Array, b: Array, precision: str):
  return _matmul(a, b, precision), (a, b)


def _backward(precision: str, saved: tuple[Array, Array], given: Array):
  a, b = saved
  da = _product(given, turned(b), precision)
  return da, transposed_matmul(a, given, precision)


_matmul.defvjp(_forward, _backward)
