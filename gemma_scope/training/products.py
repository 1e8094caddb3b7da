"""Matrix products whose operands are rounded, forwards and backwards alike.

    c = round(a) @ round(b)     da = round(dc) @ round(b)^T
                                db = round(a)^T @ round(dc)

All three are added up, and returned, in float32. Left to itself, JAX would
round the gradients of bfloat16 operands to bfloat16 once more.
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
  return _product(a, b, (1, 0), precision)


def _product(
  a: Array, b: Array, contracted: tuple[int, int], precision: str
) -> Array:
  if precision == "bfloat16":
    a, b = a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)
  exact = precision == "float32"
  return jax.lax.dot_general(
    a,
    b,
    (((contracted[0],), (contracted[1],)), ((), ())),
    precision=jax.lax.Precision.HIGHEST if exact else None,
    preferred_element_type=jnp.float32,
  )


def _forward(a: Array, b: Array, precision: str):
  return _matmul(a, b, precision), (a, b)


def _backward(precision: str, saved: tuple[Array, Array], given: Array):
  a, b = saved
  da = _product(given, b, (1, 1), precision)
  return da, _product(a, given, (0, 0), precision)


_matmul.defvjp(_forward, _backward)
