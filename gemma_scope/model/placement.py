"""Where each token stands: its sequence, its position, its rotary angles.

Rows may hold one sequence and padding, or several sequences packed one after
the other. `segment_ids` tells them apart: 0 is padding, every other number is
a sequence, contiguous in its row. Positions count from the sequence's start.
`Tokens` says which token it is, and whether the model wrote it.
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
class Tokens:
  """What stands at each place, for edits that choose by it.

  Attributes:
    ids: Token ids.
    ordinals: How many equal tokens stand before in the same sequence.
    prompts: Length of the prompt that the token's sequence begins with; tokens
      at this position and behind it were generated.
  """

  ids: Int[Array, "batch seq"]
  ordinals: Int[Array, "batch seq"]
  prompts: Int[Array, "batch seq"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Placement:
  """Places and the rotary angles that follow from them.

  Attributes:
    places: Sequence and position of every token.
    local: Rotary angles of local layers.
    globally: Rotary angles of global layers.
    tokens: What stands there, where it is known.
  """

  places: Places
  local: Rotation
  globally: Rotation
  tokens: Tokens | None = None

  def take(self, columns: Int[Array, " columns"]) -> "Placement":
    """The placement of some columns of every row."""
    return jax.tree.map(lambda a: jnp.take(a, columns, axis=1), self)


def places_of(segment_ids: Int[Array, "batch seq"]) -> Places:
  """Positions counted from the first token of each sequence."""
  index = jnp.arange(segment_ids.shape[1], dtype=jnp.int32)[None, :]
  starts = jnp.where(segment_ids != _before(segment_ids), index, 0)
  first = jax.lax.cummax(starts, axis=1)
  return Places(segment_ids, index - first)


def tokens_of(
  ids: Int[Array, "batch seq"],
  places: Places,
  prompts: Int[Array, "batch seq"] | None = None,
) -> Tokens:
  """Adds to token ids what edits may ask of them.

  Args:
    ids: Token ids.
    places: Where they stand.
    prompts: Length of each token's prompt; by default all of its sequence.
  """
  segments = places.segment_ids
  if prompts is None:
    index = jnp.arange(ids.shape[1], dtype=jnp.int32)[None, :]
    after = jnp.pad(segments[:, 1:], ((0, 0), (0, 1)), constant_values=-1)
    ends = jnp.where(segments != after, index, ids.shape[1])
    last = jax.lax.cummin(ends, axis=1, reverse=True)
    prompts = places.positions + last - index + 1
  return Tokens(ids, _ordinals(ids, segments), prompts)


def _ordinals(
  ids: Int[Array, "batch seq"], segments: Int[Array, "batch seq"]
) -> Int[Array, "batch seq"]:
  """Counts equal tokens of the same sequence that stand before each.

  Equal ones become neighbours by a stable sort, so that no pair of columns
  is compared.
  """
  index = jnp.broadcast_to(jnp.arange(ids.shape[1], dtype=jnp.int32), ids.shape)
  segment, token, column = jax.lax.sort(
    (segments.astype(jnp.int32), ids.astype(jnp.int32), index),
    dimension=1,
    num_keys=2,
  )
  new = (segment != _before(segment)) | (token != _before(token))
  first = jax.lax.cummax(jnp.where(new, index, 0), axis=1)
  _, ordinals = jax.lax.sort((column, index - first), dimension=1, num_keys=1)
  return ordinals


def _before(values: Int[Array, "batch seq"]) -> Int[Array, "batch seq"]:
  """Each column's left neighbour; -1 in front of the first."""
  return jnp.pad(values[:, :-1], ((0, 0), (1, 0)), constant_values=-1)


def placement_of(
  places: Places, config: GemmaConfig, tokens: Tokens | None = None
) -> Placement:
  """Adds the rotary angles of `config` to `places`, and what stands there."""
  local = rotation(
    places.positions, config.head_dim, config.rope_base_local, 1.0
  )
  globally = rotation(
    places.positions,
    config.head_dim,
    config.rope_base_global,
    config.rope_factor,
  )
  return Placement(places, local, globally, tokens)
