"""What every faithfulness metric is: runs it wants, and numbers from them.

A metric asks for runs of each prompt given the scores of its tokens, and turns
the target's values in those runs into one number a prompt and name. It never
runs the model: the runs of all metrics and methods are computed together, equal
ones once.
"""

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from gemma_scope.evals.perturbation import Runs

Numbers = Mapping[str, np.ndarray]


class Metric(Protocol):
  """One metric; a frozen dataclass with its settings.

  Attributes:
    better: Name of each number it gives -> "high" or "low".
  """

  @property
  def better(self) -> Mapping[str, str]:
    """Name of each number it gives -> whether high or low is better."""
    ...

  def runs(self, scores: np.ndarray, candidates: np.ndarray) -> Runs:
    """The runs it wants.

    Args:
      scores: [prompts, width] token scores of one method.
      candidates: [prompts, width] whether a token may be taken away.
    """
    ...

  def measure(self, values: np.ndarray, candidates: np.ndarray) -> Numbers:
    """Its numbers, [prompts] each.

    Args:
      values: [prompts, runs] the target in the runs, in their order.
      candidates: As in `runs`.
    """
    ...
