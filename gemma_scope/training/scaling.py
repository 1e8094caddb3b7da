"""Scale and centre of each site, from the first rows.

    centre = mean of x, or its geometric median
    scale  = 1 / sqrt(mean over rows of |x|^2), or of |x - centre|^2, or
             1 / median over rows of |x - centre|

One scalar a site, so that a vector's mean squared norm (Gemma Scope 2), or the
variance that is to be explained, is 1 in training; it is folded into the
weights at the end. Of the residual stream of Gemma 3 most of the norm is that
of the mean, and half of the variance that of a thousandth of the tokens: the
median does not see them. The geometric median (the point with the
least mean distance to the rows, by Weiszfeld's iteration) heeds outliers less.
"""

from collections.abc import Sequence
import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gemma_scope.activations.rows import Rows, RowSource
from gemma_scope.sites import Site
from gemma_scope.training.config import TrainConfig

_WEISZFELD = 32


@dataclasses.dataclass(frozen=True)
class SiteScale:
  """What was measured at a site.

  Attributes:
    scale: What vectors are multiplied with.
    centre: [d] float32, of the scaled vectors.
  """

  scale: Array
  centre: Array


def measure(source: RowSource, config: TrainConfig) -> dict[Site, SiteScale]:
  """Reads the first batches and measures every site.

  These batches are used for this alone.

  Args:
    source: At its beginning.
    config: For how many, and what is wanted.
  """
  batches = [next(source) for _ in range(max(config.first_batches, 1))]
  return {s: _measure(s, batches, config) for s in config.sites}


def _measure(
  site: Site, batches: Sequence[Rows], config: TrainConfig
) -> SiteScale:
  x = jnp.concatenate([b[site] for b in batches]).astype(jnp.float32)
  centre = {
    "mean": lambda v: v.mean(axis=0),
    "geometric_median": geometric_median,
    "zero": lambda v: jnp.zeros(v.shape[1:]),
  }[config.centre](x)
  scale = {
    "norm": lambda: _scale(x),
    "deviation": lambda: _scale(x - centre[None, :]),
    "median": lambda: _median_scale(x - centre[None, :]),
    "none": lambda: jnp.float32(1),
  }[config.scale]()
  return SiteScale(scale, centre * scale)


@jax.jit
def _scale(x: Float[Array, "rows d"]) -> Float[Array, ""]:
  squares = jnp.square(x).sum(axis=1).mean()
  return jax.lax.rsqrt(jnp.where(squares > 0, squares, 1))


@jax.jit
def _median_scale(x: Float[Array, "rows d"]) -> Float[Array, ""]:
  median = jnp.median(jnp.linalg.norm(x, axis=1))
  return 1 / jnp.where(median > 0, median, 1)


@jax.jit
def geometric_median(x: Float[Array, "rows d"]) -> Float[Array, " d"]:
  """The point whose mean distance to the rows is least."""

  def closer(_: int | Array, point: Array) -> Array:
    distance = jnp.linalg.norm(x - point[None, :], axis=1)
    weight = 1 / jnp.maximum(distance, 1e-6)
    return (weight[:, None] * x).sum(axis=0) / weight.sum()

  return jax.lax.fori_loop(0, _WEISZFELD, closer, x.mean(axis=0))
