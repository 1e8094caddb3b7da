"""Which layers a stack scans over together, and which it runs one by one.

A scan needs every period to do the same. Periods in which a tap or an edit
acts on one layer and not on its like are therefore cut out into runs of their
own; without any, one run covers them all. Pure bookkeeping on integers.
"""

from collections.abc import Callable, Hashable
import dataclasses


@dataclasses.dataclass(frozen=True)
class Run:
  """Consecutive whole periods that one scan covers.

  Attributes:
    first: The first period.
    count: Number of periods.
  """

  first: int
  count: int

  def layers(self, k: int, period: int) -> range:
    """The layers at place `k` of the run's periods."""
    start = self.first * period + k
    return range(start, start + self.count * period, period)

  def all_layers(self, period: int) -> range:
    """All layers of the run, in order."""
    return range(self.first * period, (self.first + self.count) * period)


def group_periods(
  num_periods: int, signature: Callable[[int], Hashable]
) -> tuple[Run, ...]:
  """Groups neighbours with equal signature into runs."""
  runs: list[Run] = []
  previous: Hashable = None
  for p in range(num_periods):
    here = signature(p)
    if runs and here == previous:
      runs[-1] = Run(runs[-1].first, runs[-1].count + 1)
    else:
      runs.append(Run(p, 1))
    previous = here
  return tuple(runs)
