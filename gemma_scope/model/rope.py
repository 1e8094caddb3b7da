"""Rotary position embedding, split-half, with angles in float32.

    angle[p, i] = p / (factor * base ** (2 i / H))
    (a, b) -> (a cos - b sin, b cos + a sin),  a, b = the two halves of a head

Source: Su et al. 2021, "RoFormer", eq. 34, in the split-half order.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np


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
  # On the host and in float64 up to one rounding each of power and quotient:
  # a unit in the last place is 1e-4 of a radian at position 1,000.
  powers = float(base) ** (np.arange(0, head_dim, 2) / head_dim)
  frequencies = 1.0 / powers.astype(np.float32) / np.float32(factor)
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
