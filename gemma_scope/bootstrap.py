"""Means with bootstrap intervals over prompts.

    interval = percentiles of mean(values[resampled prompts])

Prompts are the unit: what is measured on one prompt (all its tokens, seeds and
steps) stays together. Differences between methods are paired: both are measured
on the same prompts, so the difference is resampled, not the two means. Source:
Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13.
"""

import dataclasses

import numpy as np

from gemma_scope.errors import GemmaScopeError

RESAMPLES = 10_000
LEVEL = 0.95


@dataclasses.dataclass(frozen=True)
class Interval:
  """A statistic with the interval that holds it.

  Attributes:
    mean: The statistic on the prompts themselves.
    low: Lower end.
    high: Upper end.
    n: Number of prompts.
  """

  mean: float
  low: float
  high: float
  n: int

  def excludes_zero(self) -> bool:
    """Whether zero lies outside the interval."""
    return not self.low <= 0.0 <= self.high

  def disjoint(self, other: "Interval") -> bool:
    """Whether no value lies in both intervals."""
    return self.low > other.high or other.low > self.high

  def to_dict(self) -> dict[str, float | int]:
    """The fields as JSON values."""
    return dataclasses.asdict(self)

  def __str__(self) -> str:
    return format(self, ".3f")

  def __format__(self, form: str) -> str:
    """`mean [low, high]`, each number as `form` says; `str` without one."""
    if not form:
      return str(self)
    mean, low, high = (
      format(v, form) for v in (self.mean, self.low, self.high)
    )
    return f"{mean} [{low}, {high}]"


def bootstrap_mean(
  values: np.ndarray,
  *,
  resamples: int = RESAMPLES,
  level: float = LEVEL,
  seed: int = 0,
) -> Interval:
  """The mean over prompts with its percentile interval.

  Args:
    values: [prompts] one number a prompt; NaN marks prompts without one, which
      are left out of the mean and of n.
    resamples: How many times prompts are drawn with replacement.
    level: Probability the interval is meant to hold.
    seed: Seed of the draws.

  Raises:
    GemmaScopeError: If there is no prompt with a number.
  """
  values = np.asarray(values, np.float64)
  values = values[~np.isnan(values)]
  if values.ndim != 1 or not values.size:
    raise GemmaScopeError(
      "A bootstrap needs one number for each of some prompts.",
      received=f"values of shape {values.shape}, NaN left out",
      instead="an array [prompts] with at least one number",
    )
  weights = resampling_counts(len(values), resamples, seed)
  means = weights @ values / len(values)
  low, high = percentile_ends(means, level)
  return Interval(float(values.mean()), low, high, len(values))


def paired_difference(
  a: np.ndarray,
  b: np.ndarray,
  *,
  resamples: int = RESAMPLES,
  level: float = LEVEL,
  seed: int = 0,
) -> Interval:
  """The mean of a - b over prompts with its interval, prompts kept paired.

  Args:
    a: [prompts] one method's numbers.
    b: [prompts] another's, on the same prompts in the same order.
    resamples: How many times prompts are drawn.
    level: Probability the interval is meant to hold.
    seed: Seed of the draws.

  Raises:
    GemmaScopeError: If the two are not for the same prompts.
  """
  a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
  if a.shape != b.shape:
    raise GemmaScopeError(
      "A paired difference needs both numbers of every prompt.",
      received=f"shapes {a.shape} and {b.shape}",
      instead="two arrays [prompts] in the same order",
    )
  return bootstrap_mean(a - b, resamples=resamples, level=level, seed=seed)


def resampling_counts(n: int, resamples: int, seed: int) -> np.ndarray:
  """[resamples, n] how often each prompt was drawn; rows sum to n."""
  rng = np.random.default_rng(seed)
  return rng.multinomial(n, np.full(n, 1 / n), size=resamples)


def percentile_ends(draws: np.ndarray, level: float) -> tuple[float, float]:
  """The two ends of the central `level` of some draws, NaN left out."""
  draws = draws[~np.isnan(draws)]
  if not draws.size:
    return float("nan"), float("nan")
  tail = 50 * (1 - level)
  low, high = np.percentile(draws, [tail, 100 - tail])
  return float(low), float(high)
