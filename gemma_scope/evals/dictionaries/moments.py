"""Sums of vectors from which variances about their own mean follow.

    sum |y - m|^2 = sum |y - c|^2 - 2 (m - c) . sum (y - c) + n |m - c|^2

Sums are kept about a centre c near the mean, because activations have a few
very large dimensions and float32 would lose the variance beside them. The mean
m is that of all tokens; when rows are resampled it stays where it is.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float
import numpy as np

Moments = dict[str, Array]


@jax.jit
def mean(
  values: Float[Array, "sites rows seq d"], counted: Bool[Array, "rows seq"]
) -> Float[Array, "sites d"]:
  """The mean over tokens that count; zero where there is none."""
  kept = jnp.where(counted[None, :, :, None], values, 0)
  return kept.sum(axis=(1, 2)) / jnp.maximum(counted.sum(), 1)


@jax.jit
def moments(
  values: Float[Array, "sites rows seq d"],
  counted: Bool[Array, "rows seq"],
  centre: Float[Array, "sites d"],
) -> Moments:
  """Sums of each row: `tokens` [rows], and about the centre `shifts`
  [rows, sites, d] and `squares` [rows, sites].
  """
  shifted = values.astype(jnp.float32) - centre[:, None, None, :]
  shifted = jnp.where(counted[None, :, :, None], shifted, 0)
  return {
    "tokens": counted.sum(axis=1),
    "shifts": jnp.moveaxis(shifted.sum(axis=2), 0, 1),
    "squares": jnp.moveaxis((shifted**2).sum(axis=(2, 3)), 0, 1),
  }


def variances(
  kept: dict[str, np.ndarray],
) -> Float[np.ndarray, "rows sites"]:
  """Squared distances from the mean of all rows, summed over each row."""
  tokens = np.asarray(kept["tokens"], np.float64)
  shifts = np.asarray(kept["shifts"], np.float64)
  squares = np.asarray(kept["squares"], np.float64)
  off = shifts.sum(axis=0) / max(tokens.sum(), 1.0)
  moved = np.einsum("rsd,sd->rs", shifts, off)
  return squares - 2 * moved + tokens[:, None] * (off**2).sum(axis=-1)[None]
