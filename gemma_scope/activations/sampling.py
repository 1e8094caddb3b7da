"""Choosing the next token from logits: greedy, temperature, top-k, top-p."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gemma_scope.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Sampling:
  """How the next token is chosen.

  The filters apply in the order temperature, top-k, top-p.

  Attributes:
    temperature: Divides the logits; 0 takes the most probable token.
    top_k: Keeps the k most probable tokens; None keeps all.
    top_p: Keeps the fewest tokens whose probability reaches p; None keeps all.
  """

  temperature: float = 0.0
  top_k: int | None = None
  top_p: float | None = None

  def __post_init__(self) -> None:
    fits = (
      self.temperature >= 0
      and (self.top_k is None or self.top_k >= 1)
      and (self.top_p is None or 0 < self.top_p <= 1)
    )
    if not fits:
      raise ConfigError(
        "These sampling options allow no token.",
        received=str(self),
        instead="temperature >= 0, top_k >= 1, 0 < top_p <= 1",
      )


def choose(
  logits: Float[Array, "batch vocabulary"], how: Sampling, key: jax.Array
) -> Int[Array, " batch"]:
  """The next token of each row."""
  if how.temperature == 0:
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)
  logits = logits / how.temperature
  if how.top_k is not None:
    k = min(how.top_k, logits.shape[-1])
    least = jax.lax.top_k(logits, k)[0][:, -1:]
    logits = jnp.where(logits < least, -jnp.inf, logits)
  if how.top_p is not None:
    logits = keep_nucleus(logits, how.top_p)
  return jax.random.categorical(key, logits, axis=-1).astype(jnp.int32)


def keep_nucleus(
  logits: Float[Array, "batch vocabulary"], p: float
) -> Float[Array, "batch vocabulary"]:
  """Sets to -inf what is not needed to reach probability `p`.

  Source: Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration",
  section 3.1. The token that crosses `p` is kept.
  """
  ordered = jnp.flip(jnp.sort(logits, axis=-1), axis=-1)
  probs = jax.nn.softmax(ordered, axis=-1)
  before = jnp.cumsum(probs, axis=-1) - probs
  kept = jnp.where(before < p, ordered, jnp.inf)
  least = jnp.min(kept, axis=-1, keepdims=True)
  return jnp.where(logits < least, -jnp.inf, logits)
