"""L0: how many latents are active in a token, on average.

    L0 = mean over tokens of |{i : f_i != 0}|

all layers of a dictionary together.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gemma_scope.dictionaries.protocol import Dictionary
from gemma_scope.evals.dictionaries.protocol import Findings, Seen, Sums
from gemma_scope.evals.dictionaries.ratio import Ratio


@dataclasses.dataclass(frozen=True)
class L0:
  """Mean number of active latents.

  Attributes:
    most_tokens: Enough tokens.
  """

  most_tokens: int | None = None
  name: str = dataclasses.field(default="l0", init=False)
  losses: bool = dataclasses.field(default=False, init=False)

  def measure(self, seen: Seen, /) -> Sums:
    """Active latents and tokens of each row."""
    counts = active(seen.latents, seen.counted)
    return Sums({"active": counts, "tokens": seen.counted.sum(axis=1)})

  def finish(self, dictionary: Dictionary, sums: Sums, /) -> Findings:
    """`l0`."""
    del dictionary
    return Findings({"l0": Ratio(sums.rows["active"], sums.rows["tokens"])})


@jax.jit
def active(
  latents: Float[Array, "parts rows seq latents"],
  counted: Bool[Array, "rows seq"],
) -> Float[Array, " rows"]:
  """Active latents of each row, over its tokens that count."""
  counts = (latents != 0).sum(axis=(0, 3))
  return jnp.where(counted, counts, 0).sum(axis=1)
