"""Rotary position embedding, split-half, with angles in float32.

    angle[p, i] = p / (factor * base ** (2 i / H))
    (a, b) -> (a cos - b sin, b cos + a sin),  a, b = the two halves of a head

Source: Su et al. 2021, "RoFormer", eq. 34, in the split-half order.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rotation:
  """Cosines and sines of every position, float32."""

  cos: Float[Array, "batch seq half"]
  sin: Float[Array, "batch seq half"]


def rotation(
  positions: Int[Array, "batch seq"], head_dim: int, base: float, factor: float
) -> Rotation:
  """Angles of `positions` for heads of width `head_dim`."""
  exponents = jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim
  frequencies = 1.0 / (base**exponents) / factor
  angles = positions.astype(jnp.float32)[:, :, None] * frequencies[None, None]
  return Rotation(jnp.cos(angles), jnp.sin(angles))


def rotate(
  x: Float[Array, "batch seq heads projection"], by: Rotation
) -> Float[Array, "batch seq heads projection"]:
  """Rotates every head of `x`; computes in float32, returns x's dtype."""
  a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  cos, sin = by.cos[:, :, None, :], by.sin[:, :, None, :]
  out = jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
  return out.astype(x.dtype)
