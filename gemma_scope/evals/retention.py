"""Soft comprehensiveness and sufficiency, matched in how much they keep.

Soft perturbation keeps each element of a token's embedding with a probability
that grows with the token's score (Zhao and Aletras 2023, "Incorporating
Attribution Importance for Improving Faithfulness Metrics", Soft-NS and
Soft-NC). Used as it is, a method whose normalised scores are larger on average
keeps more of the prompt, and is rewarded for it, whatever it ranks first. So
here the scores only say how a fixed budget is spread:

    q_i = min(1, c (s_i - min s)),  c such that  sum_i q_i = retention x n

    soft_sufficiency       = y(x) - mean y(token i kept with q_i)       (lower)
    soft_comprehensiveness = y(x) - mean y(token i kept with 1 - q_i)  (higher)

Every method keeps the same expected number of tokens. A score times a constant,
or plus one, changes nothing. Draws are shared between methods. The paper
divides by the drop of the empty prompt; on one prompt that is the same constant
for every method, and near zero where the prompt does not matter: left out.
"""

from collections.abc import Mapping
import dataclasses

import numpy as np

from gemma_scope.errors import GemmaScopeError
from gemma_scope.evals.metrics import Numbers
from gemma_scope.evals.perturbation import Runs
from gemma_scope.evals.rankings import checked_scores


@dataclasses.dataclass(frozen=True)
class Soft:
  """Both numbers.

  Attributes:
    retention: Expected share of the tokens that sufficiency keeps and
      comprehensiveness takes away.
    draws: How many masks are drawn for each.
  """

  retention: float = 0.3
  draws: int = 4

  def __post_init__(self) -> None:
    if not 0 < self.retention < 1 or self.draws < 1:
      raise GemmaScopeError(
        "Soft perturbation keeps a share of the tokens, in some draws.",
        received=f"retention={self.retention}, draws={self.draws}",
        instead="retention above 0 and below 1, draws=4 or more",
      )

  @property
  def better(self) -> Mapping[str, str]:
    """Name of each number -> whether high or low is better."""
    return {"soft_comprehensiveness": "high", "soft_sufficiency": "low"}

  def runs(self, scores: np.ndarray, candidates: np.ndarray) -> Runs:
    """The whole prompt, draws that take the top away, draws that keep it."""
    kept = matched_retention(scores, candidates, self.retention)
    prompts, width = candidates.shape
    whole = Runs.hard(np.ones((prompts, 1, width), bool))
    shape = (prompts, self.draws, width)
    draws = np.broadcast_to(np.arange(1, self.draws + 1), shape[:2])
    parts = [whole]
    for share in (1.0 - kept, kept):
      spread = np.broadcast_to(share[:, None, :], shape).astype(np.float32)
      parts.append(Runs(spread, draws.astype(np.int32)))
    return Runs.join(parts)

  def measure(self, values: np.ndarray, candidates: np.ndarray) -> Numbers:
    """Both numbers, from values [prompts, 1 + 2 draws]."""
    del candidates
    values = np.asarray(values, np.float64)
    without, alone = np.split(values[:, :1] - values[:, 1:], 2, axis=1)
    return {
      "soft_comprehensiveness": without.mean(axis=1),
      "soft_sufficiency": alone.mean(axis=1),
    }


def matched_retention(
  scores: np.ndarray, candidates: np.ndarray, retention: float
) -> np.ndarray:
  """The probability with which each token is kept.

  Args:
    scores: [prompts, width] token scores.
    candidates: [prompts, width] whether a token takes part.
    retention: What the probabilities of a prompt's candidates average to.

  Returns:
    [prompts, width] between 0 and 1; 0 where there is no candidate.
  """
  scores = checked_scores(scores, candidates)
  kept = np.zeros(scores.shape)
  for p, here in enumerate(candidates):
    row = scores[p, here]
    kept[p, here] = _spread(row - row.min(), retention * len(row))
  return kept


def _spread(weights: np.ndarray, budget: float) -> np.ndarray:
  """min(1, c weights) with a sum of `budget`, at most one each.

  What the weights above zero cannot hold goes to the others in equal parts.
  """
  filled = np.zeros(len(weights))
  positive = np.flatnonzero(weights > 0)
  order = positive[np.argsort(-weights[positive], kind="stable")]
  rest = np.cumsum(weights[order][::-1])[::-1]  # of this one and those below
  for full, start in enumerate(rest):
    left = budget - full
    if left <= 0:
      break
    scale = left / start
    if scale * weights[order[full]] <= 1.0:
      filled[order[full:]] = scale * weights[order[full:]]
      break
    filled[order[full]] = 1.0
  missing = budget - filled.sum()
  empty = weights <= 0
  if missing > 1e-12 and empty.any():
    filled[empty] = missing / empty.sum()
  return filled
