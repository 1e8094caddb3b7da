"""Comprehensiveness and sufficiency of the top tokens, as in ERASER.

    comprehensiveness = mean over f of y(x) - y(x without its top f)   (higher)
    sufficiency       = mean over f of y(x) - y(top f alone)            (lower)

f runs over fractions of the tokens, k = ceil(f n). Source: DeYoung et al. 2020,
"ERASER", section 4 (the area over the perturbation curve, AOPC, over bins).
There y is a probability; here it is the target in its own units: ask with
`value=np.exp` and a log-probability target for probabilities.
"""

from collections.abc import Mapping
import dataclasses

import numpy as np

from gemma_scope.errors import GemmaScopeError
from gemma_scope.evals import rankings
from gemma_scope.evals.metrics import Numbers
from gemma_scope.evals.perturbation import Runs

ERASER_FRACTIONS = (0.01, 0.05, 0.1, 0.2, 0.5)


@dataclasses.dataclass(frozen=True)
class Rationale:
  """Both numbers over some fractions.

  Attributes:
    fractions: Shares of the tokens, above 0 and up to 1.
  """

  fractions: tuple[float, ...] = ERASER_FRACTIONS

  def __post_init__(self) -> None:
    if not self.fractions or not all(0 < f <= 1 for f in self.fractions):
      raise GemmaScopeError(
        "Fractions say which share of the tokens is the rationale.",
        received=f"fractions={self.fractions}",
        instead=f"numbers above 0 and up to 1, such as {ERASER_FRACTIONS}",
      )

  @property
  def better(self) -> Mapping[str, str]:
    """Name of each number -> whether high or low is better."""
    return {"comprehensiveness": "high", "sufficiency": "low"}

  def runs(self, scores: np.ndarray, candidates: np.ndarray) -> Runs:
    """The whole prompt, then without the top tokens, then with them alone."""
    ranks = rankings.removal_ranks(scores, candidates)
    counts = rankings.counts_above(self.fractions, candidates)
    whole = np.ones((*candidates.shape[:1], 1, candidates.shape[1]), bool)
    parts = [
      whole,
      rankings.without_top(ranks, counts),
      rankings.only_top(ranks, counts, candidates),
    ]
    return Runs.hard(np.concatenate(parts, axis=1))

  def measure(self, values: np.ndarray, candidates: np.ndarray) -> Numbers:
    """Both numbers, from values [prompts, 1 + 2 fractions]."""
    del candidates
    values = np.asarray(values, np.float64)
    drop = values[:, :1] - values[:, 1:]
    without, alone = np.split(drop, 2, axis=1)
    return {
      "comprehensiveness": without.mean(axis=1),
      "sufficiency": alone.mean(axis=1),
    }
