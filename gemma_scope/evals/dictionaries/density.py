"""Density: how often each latent is active; dead and dense ones.

    density(i) = share of tokens with f_i != 0

A latent is dead if it is never active on this text, so how many are depends on
how much text there is; it is dense if it is active in more than a tenth of the
tokens. The histogram counts log10 of the densities of the living ones. There
are no intervals: rows are not kept apart for every latent.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
import numpy as np

from gemma_scope.dictionaries.protocol import Dictionary
from gemma_scope.evals.dictionaries.protocol import Findings, Seen, Sums

_EDGES = np.linspace(-7, 0, 29)  # four bins for each power of ten


@dataclasses.dataclass(frozen=True)
class Density:
  """How often latents are active.

  Attributes:
    dense_above: Share of tokens above which a latent is dense.
    most_tokens: Enough tokens.
  """

  dense_above: float = 0.1
  most_tokens: int | None = None
  name: str = dataclasses.field(default="density", init=False)
  losses: bool = dataclasses.field(default=False, init=False)

  def measure(self, seen: Seen, /) -> Sums:
    """How often each latent was active, and the number of tokens."""
    counts = _counts(seen.latents, seen.counted)
    return Sums(totals={"counts": counts, "tokens": seen.counted.sum()})

  def finish(self, dictionary: Dictionary, sums: Sums, /) -> Findings:
    """`dead` and `dense` shares, `density` by latent, its histogram."""
    del dictionary
    tokens = max(int(sums.totals["tokens"]), 1)
    density = np.asarray(sums.totals["counts"], np.float64) / tokens
    living = density[density > 0]
    histogram, _ = np.histogram(np.log10(living), _EDGES)
    values = {
      "dead": float((density == 0).mean()),
      "dense": float((density > self.dense_above).mean()),
    }
    arrays = {
      "density": density.astype(np.float32),
      "density histogram": histogram,
      "density edges": _EDGES,
    }
    return Findings(values=values, arrays=arrays)


@jax.jit
def _counts(
  latents: Float[Array, "parts rows seq latents"],
  counted: Bool[Array, "rows seq"],
) -> Int[Array, "parts latents"]:
  active = (latents != 0) & counted[None, :, :, None]
  return active.sum(axis=(1, 2), dtype=jnp.int32)
