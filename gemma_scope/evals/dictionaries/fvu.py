"""FVU: the fraction of the variance that a dictionary leaves unexplained.

    FVU = sum |y - y'|^2 / sum |y - mean(y)|^2

0 is perfect, 1 as good as the mean. Of several sites the sums run over all of
them, each about its own mean, as in `dictionaries.quality`; the FVU of each
site by itself is kept as a curve by layer.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gemma_scope.dictionaries.protocol import Dictionary
from gemma_scope.evals.dictionaries.moments import variances
from gemma_scope.evals.dictionaries.protocol import Findings, Seen, Sums
from gemma_scope.evals.dictionaries.ratio import Ratio


@dataclasses.dataclass(frozen=True)
class Fvu:
  """Fraction of variance unexplained.

  Attributes:
    most_tokens: Enough tokens.
  """

  most_tokens: int | None = None
  name: str = dataclasses.field(default="fvu", init=False)
  losses: bool = dataclasses.field(default=False, init=False)

  def measure(self, seen: Seen, /) -> Sums:
    """Squared errors of each row and site, and the targets' moments."""
    missed = squared_error(seen.target, seen.rebuilt, seen.counted)
    moments = seen.run.moments(seen.dictionary.sites_out)
    return Sums({"missed": missed, **moments})

  def finish(self, dictionary: Dictionary, sums: Sums, /) -> Findings:
    """`fvu`, and `fvu by layer` of a dictionary of several."""
    missed, total = sums.rows["missed"], variances(dict(sums.rows))
    whole = Ratio(missed.sum(axis=1), total.sum(axis=1))
    sites = dictionary.sites_out
    if len(sites) == 1:
      return Findings({"fvu": whole})
    each = {
      site.layer or 0: Ratio(missed[:, i], total[:, i])
      for i, site in enumerate(sites)
    }
    return Findings({"fvu": whole}, curves={"fvu by layer": each})


@jax.jit
def squared_error(
  target: Float[Array, "sites rows seq d"],
  rebuilt: Float[Array, "sites rows seq d"],
  counted: Bool[Array, "rows seq"],
) -> Float[Array, "rows sites"]:
  """|y - y'|^2 summed over the tokens of each row that count."""
  errors = jnp.where(counted[None, :, :, None], target - rebuilt, 0)
  return jnp.moveaxis((errors**2).sum(axis=(2, 3)), 0, 1)
