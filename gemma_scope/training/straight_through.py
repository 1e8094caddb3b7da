"""Gradients where there are none: thresholds, by straight-through estimators.

    f = z * H(z - t)            JumpReLU (for t >= 0; relu(z) below)
    df/dz = H(z - t)            df/dt = -(t / w) K((z - t) / w)
    dH/dt = -(1 / w) K((z - t) / w),   dH/dz = 0,   K(u) = [-1/2 < u < 1/2]

with w the bandwidth. Source: Rajamanoharan et al. 2024, "Jumping Ahead", eq. 11
and 12 (rectangle kernel). `jump_relu` gives the latents and both counts of what
is active, so that one pass over [rows, latents] each way serves all losses.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Batch = Float[Array, "rows latents"]
Latent = Float[Array, " latents"]


class Active(NamedTuple):
  """Latents and how many are active.

  Attributes:
    latents: [rows, latents].
    per_row: L0 of each row, [rows] float32.
    frequency: Share of rows in which a latent is active, [latents] float32.
  """

  latents: Batch
  per_row: Float[Array, " rows"]
  frequency: Latent


@jax.custom_vjp
def jump_relu(z: Batch, threshold: Latent, bandwidth: Array) -> Active:
  """JumpReLU with the paper's pseudo-derivatives for thresholds.

  Args:
    z: Products with the encoder's bias.
    threshold: One a latent.
    bandwidth: A scalar, no derivative.
  """
  del bandwidth
  active = _active(z, threshold)
  return Active(
    jnp.where(active, z, 0),
    active.sum(axis=1, dtype=jnp.float32),
    active.sum(axis=0, dtype=jnp.float32) / z.shape[0],
  )


def _active(z: Batch, threshold: Latent) -> Array:
  return z > jnp.maximum(threshold, 0)[None, :]


def _forward(z: Batch, threshold: Latent, bandwidth: Array):
  return jump_relu(z, threshold, bandwidth), (z, threshold, bandwidth)


def _backward(saved: tuple[Array, Array, Array], given: Active):
  z, threshold, bandwidth = saved
  df, dl0, dp = given
  near = jnp.abs(z - threshold[None, :]) < bandwidth / 2
  counted = dl0[:, None] + dp[None, :] / z.shape[0]
  slope = threshold[None, :] * df + counted
  dt = jnp.where(near, slope, 0).sum(axis=0) * (-1 / bandwidth)
  dz = jnp.where(_active(z, threshold), df, 0)
  return dz, dt, jnp.zeros_like(bandwidth)


jump_relu.defvjp(_forward, _backward)


def counted(latents: Batch) -> Active:
  """Latents of another activation with their counts, without derivatives."""
  active = jax.lax.stop_gradient(latents) > 0
  return Active(
    latents,
    active.sum(axis=1, dtype=jnp.float32),
    active.sum(axis=0, dtype=jnp.float32) / latents.shape[0],
  )
