"""Reconstructions by every Matryoshka prefix, for the price of the last one.

    y_k = f[:, :s_k] @ w[:s_k] = y_(k-1) + f[:, s_(k-1):s_k] @ w[s_(k-1):s_k]

Backwards, a latent between s_(k-1) and s_k gets the sum of what y_k, y_(k+1), …
got, so that each latent takes part in one product there too. Source of the
loss: Bussmann et al. 2025, "Learning Multi-Level Features with Matryoshka
Sparse Autoencoders".
"""

from collections.abc import Sequence
import functools
from typing import cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gemma_scope.training.products import (
  matmul,
  transposed_matmul,
  turned,
)


def by_prefix(
  latents: Float[Array, "rows latents"],
  w_dec: Float[Array, "latents d"],
  sizes: tuple[int, ...],
  precision: str,
) -> Float[Array, "prefixes rows d"]:
  """What the first latents write, for every prefix.

  Args:
    latents: Of the whole dictionary.
    w_dec: Decoder.
    sizes: Ends of the prefixes, rising; the last is the number of latents.
    precision: Of the products.
  """
  return cast(Array, _by_prefix(latents, w_dec, sizes, precision))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _by_prefix(
  latents: Array, w_dec: Array, sizes: tuple[int, ...], precision: str
) -> Array:
  parts = [
    matmul(latents[:, a:b], w_dec[a:b], precision) for a, b in _cuts(sizes)
  ]
  return (
    jnp.cumsum(jnp.stack(parts), axis=0) if len(parts) > 1 else parts[0][None]
  )


def _cuts(sizes: tuple[int, ...]) -> Sequence[tuple[int, int]]:
  return list(zip((0, *sizes), sizes))


def _forward(
  latents: Array, w_dec: Array, sizes: tuple[int, ...], precision: str
):
  return _by_prefix(latents, w_dec, sizes, precision), (latents, w_dec)


def _backward(
  sizes: tuple[int, ...],
  precision: str,
  saved: tuple[Array, Array],
  given: Float[Array, "prefixes rows d"],
):
  latents, w_dec = saved
  df, dw = [], []
  later = jnp.zeros_like(given[0])
  for i, (a, b) in reversed(list(enumerate(_cuts(sizes)))):
    later = given[i] + later
    df.append(matmul(later, turned(w_dec[a:b]), precision))
    dw.append(transposed_matmul(latents[:, a:b], later, precision))
  return jnp.concatenate(df[::-1], axis=1), jnp.concatenate(dw[::-1])


_by_prefix.defvjp(_forward, _backward)
