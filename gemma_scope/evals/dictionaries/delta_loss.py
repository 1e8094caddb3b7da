"""Delta loss: how much worse the model predicts through a dictionary.

    delta loss = loss with the reconstruction in place - clean loss
    recovered  = (ablated - spliced) / (ablated - clean)

in nats a token, with the value ablated to zero, or to its mean over tokens: 1
if nothing is lost, 0 if a dictionary is as bad as no value at all. Against zero
it flatters at a residual stream, where the model breaks down without it; the
mean is the stricter measure.

Sources: Bricken et al. 2023, "Towards Monosemanticity" (loss recovered);
Lieberum et al. 2024, "Gemma Scope", section 4 (delta loss). See `run` for which
tokens are replaced and which losses count.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gemma_scope.dictionaries.protocol import Dictionary
from gemma_scope.evals.dictionaries.protocol import Findings, Seen, Sums
from gemma_scope.evals.dictionaries.ratio import Ratio

ABLATIONS = ("mean", "zero")


@dataclasses.dataclass(frozen=True)
class DeltaLoss:
  """Loss through the dictionary, beside clean and ablated losses.

  Attributes:
    most_tokens: Enough tokens; a forward pass and the logits of every token
      are what each dictionary costs, and each ablation of its sites.
    ablations: What it is compared with, of `ABLATIONS`; without one there is
      no `recovered`.
  """

  most_tokens: int | None = None
  ablations: tuple[str, ...] = ABLATIONS
  name: str = dataclasses.field(default="delta_loss", init=False)
  losses: bool = dataclasses.field(default=True, init=False)

  def measure(self, seen: Seen, /) -> Sums:
    """Losses of each row, and the number of predictions."""
    run, sites = seen.run, seen.dictionary.sites_out
    each = {"clean": run.clean(), "spliced": run.spliced(seen.dictionary)}
    each |= {kind: run.ablated(sites, kind) for kind in self.ablations}
    rows = {name: _total(nll, run.predicts) for name, nll in each.items()}
    return Sums(rows | {"predictions": run.predicts.sum(axis=1)})

  def finish(self, dictionary: Dictionary, sums: Sums, /) -> Findings:
    """`delta_loss`, `clean_loss`, `spliced_loss`; `zero_loss`, `mean_loss`,
    `recovered` from the mean and `recovered_zero` from zero.
    """
    del dictionary
    rows = sums.rows
    number, spliced, clean = (
      rows[n] for n in ("predictions", "spliced", "clean")
    )
    ratios = {"delta_loss": Ratio(spliced - clean, number)}
    for kind in self.ablations:
      name = "recovered" if kind == "mean" else f"recovered_{kind}"
      ratios[name] = Ratio(rows[kind] - spliced, rows[kind] - clean)
    for name in ("clean", "spliced", *self.ablations):
      ratios[f"{name}_loss"] = Ratio(rows[name], number)
    return Findings(ratios)


@jax.jit
def _total(
  nll: Float[Array, "rows seq"], predicts: Bool[Array, "rows seq"]
) -> Float[Array, " rows"]:
  return jnp.where(predicts, nll, 0).sum(axis=1)
