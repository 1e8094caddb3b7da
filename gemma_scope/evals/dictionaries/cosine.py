"""Cosine: the angle between a vector and its reconstruction, on average.

    mean over tokens and sites of y . y' / (|y| |y'|)
    mean over tokens and sites of |y'| / |y|

The second is below 1 where a dictionary shrinks what it rebuilds, as an L1
penalty does. Both say less than FVU where vectors share a large mean.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gemma_scope.dictionaries.protocol import Dictionary
from gemma_scope.evals.dictionaries.protocol import Findings, Seen, Sums
from gemma_scope.evals.dictionaries.ratio import Ratio


@dataclasses.dataclass(frozen=True)
class Cosine:
  """Cosine and ratio of lengths.

  Attributes:
    most_tokens: Enough tokens.
  """

  most_tokens: int | None = None
  name: str = dataclasses.field(default="cosine", init=False)
  losses: bool = dataclasses.field(default=False, init=False)

  def measure(self, seen: Seen, /) -> Sums:
    """Cosines, ratios of lengths and their number, of each row."""
    cosines, lengths = _cosines(seen.target, seen.rebuilt, seen.counted)
    number = seen.counted.sum(axis=1) * len(seen.target)
    return Sums({"cosines": cosines, "lengths": lengths, "number": number})

  def finish(self, dictionary: Dictionary, sums: Sums, /) -> Findings:
    """`cosine` and `length`."""
    del dictionary
    rows = sums.rows
    return Findings(
      {
        "cosine": Ratio(rows["cosines"], rows["number"]),
        "length": Ratio(rows["lengths"], rows["number"]),
      }
    )


@jax.jit
def _cosines(
  target: Float[Array, "sites rows seq d"],
  rebuilt: Float[Array, "sites rows seq d"],
  counted: Bool[Array, "rows seq"],
) -> tuple[Float[Array, " rows"], Float[Array, " rows"]]:
  """Sums over sites and tokens; a vector of zeros has cosine 0, ratio 0."""
  long, made = (jnp.linalg.norm(v, axis=-1) for v in (target, rebuilt))
  product = (target * rebuilt).sum(axis=-1)
  cosine = jnp.where(product == 0, 0.0, product / (long * made))
  ratio = jnp.where(long == 0, 0.0, made / long)

  def total(values: Float[Array, "sites rows seq"]) -> Float[Array, " rows"]:
    return jnp.where(counted[None], values, 0).sum(axis=(0, 2))

  return total(cosine), total(ratio)
