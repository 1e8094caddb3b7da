"""How far attribution methods agree about the tokens of a prompt.

Three numbers a pair of methods and prompt: Spearman's rho and Kendall's tau-b
over all tokens that can be perturbed, and the share of the top k tokens that
both name. Agreement is no evidence of truth: methods can share an error.
"""

from collections.abc import Mapping, Sequence
import dataclasses

import numpy as np

from gemma_scope.bootstrap import Interval, bootstrap_mean
from gemma_scope.display import table_html
from gemma_scope.evals import ranks

STATISTICS = ("spearman", "kendall", "top_k")


@dataclasses.dataclass(frozen=True, repr=False)
class Agreement:
  """Agreement of every pair of methods, prompt by prompt.

  Attributes:
    methods: The methods' names.
    k: How many tokens `top_k` compares.
    values: Statistic -> [methods, methods, prompts]; NaN on prompts where a
      method gives every token the same score.
  """

  methods: tuple[str, ...]
  k: int
  values: Mapping[str, np.ndarray]

  def between(self, a: str, b: str, statistic: str = "spearman") -> Interval:
    """The mean over prompts for one pair, with its bootstrap interval."""
    i, j = self.methods.index(a), self.methods.index(b)
    return bootstrap_mean(self.values[statistic][i, j])

  def matrix(self, statistic: str = "spearman") -> np.ndarray:
    """[methods, methods] mean over prompts, NaN left out."""
    values = self.values[statistic]
    known = ~np.isnan(values)
    total = np.where(known, values, 0.0).sum(axis=2)
    count = known.sum(axis=2)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)

  def to_dict(self) -> dict[str, object]:
    """Mean matrices and names as JSON values; None where there is none."""
    return {
      "methods": list(self.methods),
      "k": self.k,
      **{s: _plain(self.matrix(s)) for s in STATISTICS},
    }

  def _repr_html_(self) -> str:
    rows = [
      [name, *map(float, row)]
      for name, row in zip(self.methods, self.matrix("spearman"))
    ]
    return table_html(
      ["", *self.methods], rows, title="Agreement (Spearman, mean of prompts)"
    )


def agreement(
  scores: Mapping[str, np.ndarray],
  candidates: Sequence[np.ndarray] | np.ndarray,
  *,
  k: int = 3,
) -> Agreement:
  """Compares methods two by two.

  Args:
    scores: Method -> [prompts, seq] score of each token.
    candidates: [prompts, seq] whether a token takes part.
    k: How many tokens `top_k` compares.
  """
  names = tuple(scores)
  prompts = len(candidates)
  shape = (len(names), len(names), prompts)
  values = {s: np.full(shape, np.nan) for s in STATISTICS}
  for p, here in enumerate(candidates):
    rows = [np.asarray(scores[name][p])[np.asarray(here)] for name in names]
    for i, a in enumerate(rows):
      for j in range(i, len(rows)):
        found = (
          ranks.spearman(a, rows[j]),
          ranks.kendall(a, rows[j]),
          ranks.top_k_overlap(a, rows[j], k),
        )
        for statistic, value in zip(STATISTICS, found):
          values[statistic][i, j, p] = values[statistic][j, i, p] = value
  return Agreement(names, k, values)


def _plain(matrix: np.ndarray) -> list[list[float | None]]:
  return [[None if np.isnan(v) else float(v) for v in row] for row in matrix]
