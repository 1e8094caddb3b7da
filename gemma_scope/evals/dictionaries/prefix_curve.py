"""Prefix curve: how well the first latents alone rebuild, size by size.

    FVU(s) of y_s = f[:s] @ w_dec[:s] + b_dec (+ skip)        and L0(s)

for the sizes in `About.prefixes` and the whole dictionary; of one that has none
nothing is said. Of a TopK dictionary all latents compete, and then the first
are kept, as in `dictionaries.prefixes`.
"""

import dataclasses

from gemma_scope.dictionaries.protocol import Dictionary
from gemma_scope.evals.dictionaries.fvu import squared_error
from gemma_scope.evals.dictionaries.l0 import active
from gemma_scope.evals.dictionaries.moments import variances
from gemma_scope.evals.dictionaries.protocol import Findings, Seen, Sums
from gemma_scope.evals.dictionaries.ratio import Ratio
from gemma_scope.evals.dictionaries.seeing import decoded


@dataclasses.dataclass(frozen=True)
class PrefixCurve:
  """FVU and L0 of Matryoshka prefixes.

  Attributes:
    most_tokens: Enough tokens.
  """

  most_tokens: int | None = None
  name: str = dataclasses.field(default="prefixes", init=False)
  losses: bool = dataclasses.field(default=False, init=False)

  def measure(self, seen: Seen, /) -> Sums:
    """Squared errors and active latents of each row at each size."""
    wanted = sizes(seen.dictionary)
    if not wanted:
      return Sums()
    found = dict(seen.run.moments(seen.dictionary.sites_out))
    beside = seen.rebuilt - decoded(seen.dictionary, seen.latents)
    for size in wanted:
      rebuilt = decoded(seen.dictionary, seen.latents, size) + beside
      missed = squared_error(seen.target, rebuilt, seen.counted)
      found[f"missed {size}"] = missed.sum(axis=1)
      found[f"active {size}"] = active(seen.latents[..., :size], seen.counted)
    return Sums(found)

  def finish(self, dictionary: Dictionary, sums: Sums, /) -> Findings:
    """Curves `fvu by prefix` and `l0 by prefix`."""
    found = sizes(dictionary)
    if not found:
      return Findings()
    rows = dict(sums.rows)
    total = variances(rows).sum(axis=1)
    return Findings(
      curves={
        "fvu by prefix": {s: Ratio(rows[f"missed {s}"], total) for s in found},
        "l0 by prefix": {
          s: Ratio(rows[f"active {s}"], rows["tokens"]) for s in found
        },
      }
    )


def sizes(dictionary: Dictionary) -> tuple[int, ...]:
  """The prefixes and the whole; empty if there is no prefix."""
  whole = dictionary.num_latents
  inner = tuple(s for s in dictionary.about.prefixes if s < whole)
  return (*inner, whole) if inner else ()
