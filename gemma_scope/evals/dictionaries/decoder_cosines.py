"""Decoder cosines: how close each latent's direction is to its nearest other.

    c(i) = max over j != i of w_i . w_j / (|w_i| |w_j|)

with w_i what latent i writes, all sites it writes to in one vector. Values near
1 are latents that stand for the same thing. It needs no text. Of a dictionary
with many latents a sample of `most_latents` is compared with all.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

from gemma_scope import axes
from gemma_scope.dictionaries.cross_layer import CrossLayer
from gemma_scope.dictionaries.crosscoder import Crosscoder
from gemma_scope.dictionaries.maps import plain
from gemma_scope.dictionaries.protocol import Dictionary
from gemma_scope.dictionaries.single_layer import SingleLayer
from gemma_scope.errors import ConfigError
from gemma_scope.evals.dictionaries.protocol import Findings, Seen, Sums

_AT_ONCE = 512
_EDGES = np.linspace(-1, 1, 41)


@dataclasses.dataclass(frozen=True)
class DecoderCosines:
  """Cosine of each latent's direction to its nearest other.

  Attributes:
    most_latents: How many latents are compared with all others; a sample
      drawn with a fixed seed where there are more.
    close_above: Cosine above which two latents count as the same.
  """

  most_latents: int = 16_384
  close_above: float = 0.9
  name: str = dataclasses.field(default="decoder_cosines", init=False)
  losses: bool = dataclasses.field(default=False, init=False)
  most_tokens: int | None = dataclasses.field(default=0, init=False)

  def measure(self, seen: Seen, /) -> Sums:
    """Nothing: text does not matter."""
    del seen
    return Sums()

  def finish(self, dictionary: Dictionary, sums: Sums, /) -> Findings:
    """`nearest`, the mean of c; `twins`, the share of c above `close_above`;
    c itself with the latents it is of, and its histogram.
    """
    del sums
    rows = decoder_rows(dictionary)
    chosen = np.arange(len(rows))
    if len(rows) > self.most_latents:
      rng = np.random.default_rng(0)
      chosen = np.sort(rng.choice(len(rows), self.most_latents, replace=False))
    nearest = nearest_cosines(rows, chosen)
    values = {
      "nearest": float(np.mean(nearest)),
      "twins": float((nearest > self.close_above).mean()),
    }
    arrays = {
      "nearest": nearest,
      "nearest latents": chosen,
      "nearest histogram": np.histogram(nearest, _EDGES)[0],
      "nearest edges": _EDGES,
    }
    return Findings(values=values, arrays=arrays)


def decoder_rows(dictionary: Dictionary) -> Float[Array, "latents d"]:
  """What each latent writes to all sites, those of every layer in a row.

  Raises:
    ConfigError: This is no dictionary whose decoder is known here.
  """
  if isinstance(dictionary, SingleLayer):
    return plain(dictionary.w_dec, axes.LATENTS, axes.OUTPUT)
  if isinstance(dictionary, Crosscoder):
    parts = [plain(w, axes.LATENTS, axes.OUTPUT) for w in dictionary.w_dec]
    return jnp.concatenate(parts, axis=1)
  if isinstance(dictionary, CrossLayer):
    count = len(dictionary.parts)
    found = []
    for part in dictionary.parts:
      w = plain(part.w_dec, axes.LATENTS, axes.LAYER, axes.OUTPUT)
      w = jnp.pad(w, ((0, 0), (count - w.shape[1], 0), (0, 0)))
      found.append(w.reshape(len(w), -1))
    return jnp.concatenate(found)
  raise ConfigError(
    "The decoder of this dictionary is not known.",
    received=type(dictionary).__name__,
    instead="an Sae, Transcoder, Crosscoder or CrossLayer; or metrics without "
    "DecoderCosines",
  )


def nearest_cosines(
  rows: Float[Array, "latents d"], chosen: Int[np.ndarray, " some"]
) -> Float[np.ndarray, " some"]:
  """The largest cosine of each chosen row to any other; zeros have 0."""
  unit = _unit(jnp.asarray(rows))
  found = []
  for start in range(0, len(chosen), _AT_ONCE):
    # The last ones are filled up, so that one program serves all.
    at = np.resize(chosen[start : start + _AT_ONCE], _AT_ONCE)
    found.append(np.asarray(_nearest(unit, jnp.asarray(at))))
  return np.concatenate(found)[: len(chosen)]


@jax.jit
def _unit(rows: Float[Array, "latents d"]) -> Float[Array, "latents d"]:
  length = jnp.linalg.norm(rows, axis=1, keepdims=True)
  return jnp.where(length == 0, 0.0, rows / jnp.where(length == 0, 1, length))


@jax.jit
def _nearest(
  unit: Float[Array, "latents d"], at: Int[Array, " some"]
) -> Float[Array, " some"]:
  cosines = jnp.matmul(unit[at], unit.T, precision="highest")
  itself = jnp.arange(unit.shape[0])[None, :] == at[:, None]
  return jnp.where(itself, -jnp.inf, cosines).max(axis=1)
