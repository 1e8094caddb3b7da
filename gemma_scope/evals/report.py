"""What a faithfulness evaluation returns: one table, with its uncertainty."""

from collections.abc import Mapping
import dataclasses
import math
from typing import Any

import numpy as np

from gemma_scope.bootstrap import (
  Interval,
  bootstrap_mean,
  paired_difference,
)
from gemma_scope.display import table_html
from gemma_scope.errors import ConfigError
from gemma_scope.evals.agreement import Agreement
from gemma_scope.evals.scores import Cost

ARROWS = {"high": "↑", "low": "↓"}


@dataclasses.dataclass(frozen=True, repr=False)
class FaithfulnessReport:
  """Faithfulness of some methods on some prompts.

  Attributes:
    values: Method -> name of a number -> [prompts]; the baselines that know
      nothing of the model are among the methods.
    better: Name of a number -> "high" or "low".
    baselines: Which of the methods know nothing of the model.
    cost: Method -> what its scores cost; none for given scores and baselines.
    agreement: How far the methods agree.
    scores: Method -> [prompts, seq] the scores that were judged.
    config: What shaped the numbers, as JSON values.
  """

  values: Mapping[str, Mapping[str, np.ndarray]]
  better: Mapping[str, str]
  baselines: tuple[str, ...]
  cost: Mapping[str, Cost]
  agreement: Agreement
  scores: Mapping[str, np.ndarray]
  config: Mapping[str, Any]

  @property
  def methods(self) -> tuple[str, ...]:
    """Every method, baselines last."""
    return tuple(self.values)

  @property
  def n(self) -> int:
    """Number of prompts."""
    return len(next(iter(next(iter(self.values.values())).values())))

  def interval(self, method: str, number: str = "abpc") -> Interval:
    """The mean over prompts with its 95 % bootstrap interval."""
    return bootstrap_mean(self._of(method, number))

  def difference(self, a: str, b: str, number: str = "abpc") -> Interval:
    """Mean of a - b over prompts, paired, with its 95 % interval."""
    return paired_difference(self._of(a, number), self._of(b, number))

  def best(self, number: str = "abpc") -> str:
    """The method with the best mean of one number."""
    sign = -1.0 if self.better[number] == "low" else 1.0
    means = {m: sign * float(self._of(m, number).mean()) for m in self.values}
    return max(means, key=lambda m: means[m])

  def table(self) -> tuple[list[str], list[list[str]]]:
    """Headings and rows: a method, its numbers with intervals, its cost."""
    head = ["method", *(f"{k} {ARROWS[v]}" for k, v in self.better.items())]
    head += ["forwards", "seconds"]
    rows = []
    for method in self.methods:
      cells = [str(self.interval(method, number)) for number in self.better]
      cost = self.cost.get(method)
      spent = (
        [f"{cost.forwards:.1f}", f"{cost.seconds:.3f}"] if cost else ["", ""]
      )
      rows.append([method, *cells, *spent])
    return head, rows

  def to_dict(self) -> dict[str, Any]:
    """Numbers with intervals, costs and settings as JSON values."""
    return {
      "n": self.n,
      "config": dict(self.config),
      "better": dict(self.better),
      "baselines": list(self.baselines),
      "numbers": {
        method: {k: self.interval(method, k).to_dict() for k in self.better}
        for method in self.methods
      },
      "values": {
        method: {k: np.asarray(v).tolist() for k, v in numbers.items()}
        for method, numbers in self.values.items()
      },
      "cost": {m: dataclasses.asdict(c) for m, c in self.cost.items()},
      "agreement": self.agreement.to_dict(),
    }

  def _of(self, method: str, number: str) -> np.ndarray:
    if method in self.values and number in self.better:
      return np.asarray(self.values[method][number], np.float64)
    raise ConfigError(
      "The report has no such number.",
      received=f"{number!r} of {method!r}",
      instead=f"one of {', '.join(self.better)} of {', '.join(self.methods)}",
    )

  def __repr__(self) -> str:
    found = ", ".join(
      f"{m} {self.interval(m).mean:.3f}"
      for m in self.methods
      if not math.isnan(self._of(m, "abpc").mean())
    )
    return f"FaithfulnessReport(n={self.n}, abpc: {found})"

  def _repr_html_(self) -> str:
    head, rows = self.table()
    title = f"Faithfulness, {self.n} prompts, 95 % intervals over prompts"
    return table_html(head, rows, title=title)
