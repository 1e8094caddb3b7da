"""Where each token stands: its sequence, its position, its rotary angles.

Rows may hold one sequence and padding, or several sequences packed one after
the other. `segment_ids` tells them apart: 0 is padding, every other number is
a sequence, contiguous in its row. Positions count from the sequence's start.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from gemma_scope.model.config import GemmaConfig
from gemma_scope.model.rope import Rotation, rotation


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Places:
  """The sequence of each token, and the place it has there."""

  segment_ids: Int[Array, "batch seq"]
  positions: Int[Array, "batch seq"]

  def slice(self, start: int, stop: int) -> "Places":
    """The places of columns `start` to `stop`."""
    return Places(
      self.segment_ids[:, start:stop], self.positions[:, start:stop]
    )

  def then(self, more: "Places") -> "Places":
    """These columns followed by the columns of `more`."""
    return Places(
      jnp.concatenate([self.segment_ids, more.segment_ids], axis=1),
      jnp.concatenate([self.positions, more.positions], axis=1),
    )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Placement:
  """Places and the rotary angles that follow from them.

  Attributes:
    places: Sequence and position of every token.
    local: Rotary angles of local layers.
    globally: Rotary angles of global layers.
  """

  places: Places
  local: Rotation
  globally: Rotation


def places_of(segment_ids: Int[Array, "batch seq"]) -> Places:
  """Positions counted from the first token of each sequence."""
  index = jnp.arange(segment_ids.shape[1], dtype=jnp.int32)[None, :]
  before = jnp.pad(segment_ids[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
  starts = jnp.where(segment_ids != before, index, 0)
  first = jax.lax.cummax(starts, axis=1)
  return Places(segment_ids, index - first)


def placement_of(places: Places, config: GemmaConfig) -> Placement:
  """Adds the rotary angles of `config` to `places`."""
  local = rotation(
    places.positions, config.head_dim, config.rope_base_local, 1.0
  )
  globally = rotation(
    places.positions,
    config.head_dim,
    config.rope_base_global,
    config.rope_factor,
  )
  return Placement(places, local, globally)
