"""A quotient of sums over rows, with a bootstrap interval over rows.

    r = sum over rows of a / sum over rows of b

Rows of the packed text are the unit that is resampled: the tokens of a row stay
together. Every mean over tokens is such a quotient, with b the number of tokens
in each row. Two of them on the same rows are compared row by row: both are
resampled together. Source: Efron and Tibshirani 1993, "An Introduction to the
Bootstrap", chapter 13. A document that is longer than a row counts as several,
which makes intervals of few long documents too narrow.
"""

import dataclasses
import functools

from jaxtyping import Float
import numpy as np

from gemma_scope.bootstrap import (
  LEVEL,
  Interval,
  percentile_ends,
  resampling_counts,
)
from gemma_scope.errors import ConfigError

RESAMPLES = 2_000
_SEED = 0


@dataclasses.dataclass(frozen=True, eq=False)
class Ratio:
  """Sum of `above` over sum of `below`.

  Attributes:
    above: One number a row.
    below: One number a row.
  """

  above: Float[np.ndarray, " rows"]
  below: Float[np.ndarray, " rows"]

  def __post_init__(self) -> None:
    for name in ("above", "below"):
      rows = np.asarray(getattr(self, name), np.float64)
      object.__setattr__(self, name, rows)

  @property
  def value(self) -> float:
    """The quotient; NaN where it has no denominator."""
    return float(_divide(self.above.sum(), self.below.sum()))

  @property
  def num_rows(self) -> int:
    """How many rows have a part in it."""
    return int(np.count_nonzero((self.below != 0) | (self.above != 0)))

  def interval(self) -> Interval:
    """The quotient with its 95 % interval."""
    low, high = percentile_ends(self._draws(), LEVEL)
    return Interval(self.value, low, high, self.num_rows)

  def minus(self, other: "Ratio") -> Interval:
    """The difference from another quotient on the same rows, in pairs.

    Raises:
      ConfigError: The other is of other rows.
    """
    if self.above.shape != other.above.shape:
      raise ConfigError(
        "Two numbers are compared on the same rows.",
        received=f"{len(self.above)} rows and {len(other.above)}",
        instead="numbers of one evaluation",
      )
    draws = self._draws() - other._draws()
    low, high = percentile_ends(draws, LEVEL)
    difference = self.value - other.value
    return Interval(difference, low, high, min(self.num_rows, other.num_rows))

  def to_dict(self) -> dict[str, float | int | None]:
    """The interval as JSON values; None for what is not finite."""
    found = self.interval().to_dict()
    return {k: v if np.isfinite(v) else None for k, v in found.items()}

  def _draws(self) -> Float[np.ndarray, " draws"]:
    """The quotient for every resampling of the rows."""
    drawn = _counts(len(self.above))
    return _divide(drawn @ self.above, drawn @ self.below)


def mean_of(values: np.ndarray) -> Ratio:
  """The plain mean of one number for each of some units."""
  return Ratio(values, np.ones(len(values)))


def _divide(above: np.ndarray, below: np.ndarray) -> np.ndarray:
  with np.errstate(divide="ignore", invalid="ignore"):
    return np.where(below == 0, np.nan, np.divide(above, below))


@functools.lru_cache(maxsize=2)
def _counts(rows: int) -> Float[np.ndarray, "draws rows"]:
  """Kept, for every number of an evaluation has the same rows."""
  return resampling_counts(rows, RESAMPLES, _SEED).astype(np.float64)
