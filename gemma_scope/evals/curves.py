"""Deletion and insertion curves.

Tokens go one after the other, most relevant first (MoRF) or least relevant
first (LeRF), and the target y is measured after each step k of n:

    morf = area under y against k / n, most relevant first     (lower is better)
    lerf = the same, least relevant first                     (higher is better)
    abpc = lerf - morf: the area between the two              (higher is better)

Read backwards, LeRF is insertion of the most relevant tokens first: `lerf` is
the insertion area, `morf` the deletion area. A random order has abpc 0 on
average. Sources: Samek et al. 2017, "Evaluating the Visualization of What a
Deep Neural Network Has Learned"; Petsiuk et al. 2018, "RISE"; Bluecher et al.
2024, "Decoupling Pixel Flipping and Occlusion Strategy" (the area between).

Areas are in the target's units and not normalised: comparisons between methods
on the same prompts stand, between models they do not (Edin et al. 2025,
"Normalized AOPC").
"""

from collections.abc import Mapping
import dataclasses

import numpy as np

from gemma_scope.evals import rankings
from gemma_scope.evals.metrics import Numbers
from gemma_scope.evals.perturbation import Runs


@dataclasses.dataclass(frozen=True)
class Curves:
  """The areas under and between both curves.

  Attributes:
    steps: Number of steps from the whole prompt to none of it. A prompt of
      fewer tokens takes a step for each.
  """

  steps: int = 10

  @property
  def better(self) -> Mapping[str, str]:
    """Name of each number -> whether high or low is better."""
    return {"morf": "low", "lerf": "high", "abpc": "high"}

  def runs(self, scores: np.ndarray, candidates: np.ndarray) -> Runs:
    """Both curves, each from the whole prompt to none of it."""
    ranks = rankings.removal_ranks(scores, candidates)
    counts = self.counts(candidates)
    first = rankings.without_top(ranks, counts)
    last = rankings.without_bottom(ranks, counts, candidates)
    return Runs.hard(np.concatenate([first, last], axis=1))

  def counts(self, candidates: np.ndarray) -> np.ndarray:
    """[prompts, steps + 1] how many tokens are gone after each step."""
    return rankings.counts_at(rankings.grid(self.steps), candidates)

  def measure(self, values: np.ndarray, candidates: np.ndarray) -> Numbers:
    """The areas, from values [prompts, 2 (steps + 1)]."""
    first, last = np.split(np.asarray(values, np.float64), 2, axis=1)
    counts = self.counts(candidates)
    morf, lerf = area(first, counts), area(last, counts)
    return {"morf": morf, "lerf": lerf, "abpc": lerf - morf}


def area(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
  """[prompts] area under values against the share of tokens that are gone.

  Args:
    values: [prompts, points].
    counts: [prompts, points] tokens gone, from 0 to all of them.
  """
  share = counts / counts[:, -1:]
  widths = np.diff(share, axis=1)
  return (widths * (values[:, 1:] + values[:, :-1]) / 2).sum(axis=1)
