"""How well cheap estimates of effects follow the exact ones.

Cells are places in a model (layer x position, perhaps x head); every prompt has
some. Correlations are taken over the cells of all prompts together (pooled),
and prompt by prompt and then averaged. Both intervals resample prompts, since
the cells of a prompt are not independent.
"""

from collections.abc import Sequence
import dataclasses

import numpy as np

from gemma_scope.bootstrap import (
  LEVEL,
  Interval,
  bootstrap_mean,
  percentile_ends,
  resampling_counts,
)
from gemma_scope.errors import GemmaScopeError
from gemma_scope.evals import ranks

RESAMPLES = 1_000


@dataclasses.dataclass(frozen=True)
class Correlation:
  """Correlations of estimates with exact effects.

  Attributes:
    pearson: Over the cells of all prompts.
    spearman: The same on ranks. The interval keeps the ranks of the whole set
      when it resamples prompts.
    pearson_by_prompt: Mean over prompts of each prompt's own.
    spearman_by_prompt: The same on ranks.
    cells: Number of cells of all prompts.
  """

  pearson: Interval
  spearman: Interval
  pearson_by_prompt: Interval
  spearman_by_prompt: Interval
  cells: int

  def to_dict(self) -> dict[str, object]:
    """The fields as JSON values."""
    return dataclasses.asdict(self)


def correlate(
  estimates: Sequence[np.ndarray], exact: Sequence[np.ndarray], *, seed: int = 0
) -> Correlation:
  """Correlates estimates with exact effects.

  Args:
    estimates: For each prompt an array of estimated effects, any shape.
    exact: The exact effects, shapes as there.
    seed: Seed of the bootstrap.

  Raises:
    GemmaScopeError: If shapes differ, or something is not finite.
  """
  rows = [(np.ravel(a), np.ravel(b)) for a, b in zip(estimates, exact)]
  _check(estimates, exact, rows)
  a = np.concatenate([row[0] for row in rows]).astype(np.float64)
  b = np.concatenate([row[1] for row in rows]).astype(np.float64)
  ends = np.cumsum([len(row[0]) for row in rows])[:-1]
  by_rank = (ranks.average_ranks(a), ranks.average_ranks(b))
  return Correlation(
    pearson=_pooled(np.split(a, ends), np.split(b, ends), seed),
    spearman=_pooled(
      np.split(by_rank[0], ends), np.split(by_rank[1], ends), seed
    ),
    pearson_by_prompt=_by_prompt([ranks.pearson(*row) for row in rows], seed),
    spearman_by_prompt=_by_prompt([ranks.spearman(*row) for row in rows], seed),
    cells=len(a),
  )


def _check(
  estimates: Sequence[np.ndarray],
  exact: Sequence[np.ndarray],
  rows: Sequence[tuple[np.ndarray, np.ndarray]],
) -> None:
  shapes = [[np.shape(x) for x in given] for given in (estimates, exact)]
  finite = all(np.isfinite(x).all() for row in rows for x in row)
  if shapes[0] != shapes[1] or not rows or not finite:
    raise GemmaScopeError(
      "Estimates and exact effects must be finite and belong together.",
      received=f"shapes {shapes[0][:3]} and {shapes[1][:3]}, "
      f"{'all finite' if finite else 'some not finite'}",
      instead="one array for each prompt in both, of the same shape",
    )


def _pooled(
  a: Sequence[np.ndarray], b: Sequence[np.ndarray], seed: int
) -> Interval:
  """Pearson over all cells; prompts are resampled by their sums."""
  shift_a, shift_b = (np.concatenate(x).mean() for x in (a, b))
  sums = np.asarray(
    [
      [len(x), x.sum(), y.sum(), (x * x).sum(), (y * y).sum(), (x * y).sum()]
      for x, y in ((x - shift_a, y - shift_b) for x, y in zip(a, b))
    ]
  )
  counts = resampling_counts(len(a), RESAMPLES, seed)
  low, high = percentile_ends(_from_sums(counts @ sums), LEVEL)
  whole = _from_sums(sums.sum(axis=0)[None])[0]
  return Interval(float(whole), low, high, len(a))


def _from_sums(sums: np.ndarray) -> np.ndarray:
  """Pearson from [..., (n, x, y, xx, yy, xy)]."""
  n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
  spread = (xx - x * x / n) * (yy - y * y / n)
  with np.errstate(invalid="ignore", divide="ignore"):
    found = (xy - x * y / n) / np.sqrt(spread)
  return np.where(spread > 0, found, np.nan)


def _by_prompt(values: list[float], seed: int) -> Interval:
  found = np.asarray(values)
  if np.isnan(found).all():
    return Interval(float("nan"), float("nan"), float("nan"), 0)
  return bootstrap_mean(found, resamples=RESAMPLES, seed=seed)
