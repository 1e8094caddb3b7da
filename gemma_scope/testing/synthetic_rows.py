"""A row source without a model: sparse sums of known directions, and noise.

    x = offset + sum over active j of a_j d_j + noise

Every site has directions of its own and shares the coefficients a, so that one
site can be rebuilt from another. Batch n depends on the seed and n alone.
"""

from collections.abc import Mapping
import functools
from typing import Any

import jax
import jax.numpy as jnp

from gemma_scope.activations.rows import Rows
from gemma_scope.sites import Site


class SyntheticRows:
  """An endless `RowSource`.

  Attributes:
    sites: Of every batch.
    batch_rows: Rows in a batch.
  """

  def __init__(
    self,
    sites: tuple[Site, ...],
    *,
    batch_rows: int = 64,
    width: int = 16,
    features: int = 32,
    active: float = 3.0,
    seed: int = 0,
  ):
    """Sets up the directions.

    Args:
      sites: Of every batch.
      batch_rows: Rows in a batch.
      width: Numbers of a vector.
      features: How many directions there are.
      active: How many of them a row has, on average.
      seed: Of directions and rows.
    """
    self.sites = tuple(sites)
    self.batch_rows = batch_rows
    self._key = jax.random.key(seed)
    self._next = 0
    shape = len(self.sites), features, width
    directions = jax.random.normal(jax.random.fold_in(self._key, 0), shape)
    self._draw = functools.partial(
      _draw, directions, batch_rows, active / features
    )

  def __next__(self) -> Rows:
    """The next batch."""
    self._next += 1
    drawn = self._draw(jax.random.fold_in(self._key, self._next))
    return dict(zip(self.sites, drawn))

  def state(self) -> dict[str, Any]:
    """How many batches were given."""
    return {"next": self._next}

  def restore(self, state: Mapping[str, Any]) -> None:
    """Goes on after as many batches."""
    self._next = int(state["next"])


@functools.partial(jax.jit, static_argnums=(1, 2))
def _draw(
  directions: jax.Array, rows: int, share: float, key: jax.Array
) -> list[jax.Array]:
  """One array [rows, width] for each site."""
  where, size, noise = jax.random.split(key, 3)
  count, features, width = directions.shape
  active = jax.random.bernoulli(where, share, (rows, features))
  a = jnp.where(active, jax.random.uniform(size, (rows, features)) + 0.5, 0)
  disturbed = 0.05 * jax.random.normal(noise, (count, rows, width))
  return [1 + a @ directions[i] + disturbed[i] for i in range(count)]
