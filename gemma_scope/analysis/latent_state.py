"""What one pass over a text keeps of the latents of one dictionary, on device.

Of every row of a batch the strongest activation of each latent is a candidate;
the strongest candidates so far stay, with the tokens around them. So no two
examples are from one row of one batch. Counts and histograms are exact.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
from penzai import pz

from gemma_scope.dictionaries.latent_table import EDGES, NOTHING

Tokens = Int[Array, "batch seq"]
Mask = Bool[Array, "batch seq"]
Latents = Float[Array, "batch seq latents"]


@pz.pytree_dataclass
class LatentState(pz.Struct):
  """What is known so far.

  Attributes:
    peaks: [latents, kept] float32, strongest first; 0 where there is none.
    tokens: [latents, kept, window] int32 around each.
    activations: [latents, kept, window] float32.
    largest: [latents] float32, the largest activation of all tokens.
    at_least: [bins, latents] int32, active tokens at or above each edge; the
      first bin counts all.
  """

  peaks: jax.Array
  tokens: jax.Array
  activations: jax.Array
  largest: jax.Array
  at_least: jax.Array


def empty(latents: int, kept: int, window: int) -> LatentState:
  """The state before any text.

  Args:
    latents: How many.
    kept: Examples to keep of each.
    window: Tokens of each example.
  """
  shape = (latents, kept, window)
  return LatentState(
    jnp.zeros((latents, kept), jnp.float32),
    jnp.full(shape, NOTHING, jnp.int32),
    jnp.zeros(shape, jnp.float32),
    jnp.zeros(latents, jnp.float32),
    jnp.zeros((len(EDGES), latents), jnp.int32),
  )


@functools.partial(jax.jit, donate_argnums=0, static_argnames="before")
def update(
  state: LatentState,
  latents: Latents,
  ids: Tokens,
  segment_ids: Tokens,
  masks: tuple[Mask, Mask],
  before: int,
) -> LatentState:
  """The state after one more batch.

  Args:
    state: The state so far; it is used up.
    latents: Of every token.
    ids: Token ids.
    segment_ids: The piece of text each is from; 0 is padding.
    masks: Which tokens count, and which may stand in an example.
    before: How many tokens of a window stand in front of the peak.
  """
  counted, quotable = masks
  active = jnp.where(counted[:, :, None], latents, 0)
  shown = jnp.where(quotable[:, :, None], active, 0)
  peaks, *windows = _candidates(
    shown, ids, segment_ids, before, state.tokens.shape[2]
  )
  every = jnp.concatenate([state.peaks, peaks], axis=1)
  best, chosen = jax.lax.top_k(every, state.peaks.shape[1])
  tokens, activations = (
    jnp.take_along_axis(
      jnp.concatenate([old, new], axis=1), chosen[:, :, None], axis=1
    )
    for old, new in zip((state.tokens, state.activations), windows)
  )
  largest = jnp.maximum(state.largest, jnp.max(active, axis=(0, 1)))
  at_least = state.at_least + _at_least(active)
  return LatentState(best, tokens, activations, largest, at_least)


def _at_least(active: Latents) -> Int[Array, "bins latents"]:
  """How many tokens reach each edge; all that are active reach the first."""
  # By latent, so that a CPU too reads what it adds up in one stretch.
  positive = jnp.where(active > 0, active, -1).reshape(-1, active.shape[-1]).T

  def reached(edge: jax.Array) -> Int[Array, " latents"]:
    return jnp.sum(positive >= edge, axis=1, dtype=jnp.int32)

  # One edge after the other: side by side they would take 64 times the memory.
  return jax.lax.map(reached, jnp.asarray([0.0, *EDGES[1:]], jnp.float32))


def _candidates(
  shown: Latents, ids: Tokens, segment_ids: Tokens, before: int, window: int
) -> tuple[
  Float[Array, "latents batch"],
  Int[Array, "latents batch window"],
  Float[Array, "latents batch window"],
]:
  """Every row's strongest activation of each latent, and what is around it."""
  peak = jnp.argmax(shown, axis=1)
  strength = jnp.max(shown, axis=1)
  columns = peak[:, None, :] + (jnp.arange(window) - before)[None, :, None]
  inside = (columns >= 0) & (columns < ids.shape[1])
  columns = jnp.clip(columns, 0, ids.shape[1] - 1)
  row = jnp.arange(ids.shape[0])[:, None, None]
  piece = jnp.take_along_axis(segment_ids, peak, axis=1)[:, None, :]
  there = inside & (segment_ids[row, columns] == piece) & (piece != 0)
  there &= strength[:, None, :] > 0
  tokens = jnp.where(there, ids[row, columns], NOTHING)
  values = jnp.take_along_axis(shown, columns, axis=1)
  values = jnp.where(there, values, 0)
  return (
    strength.T,
    tokens.transpose(2, 0, 1),
    values.transpose(2, 0, 1),
  )
