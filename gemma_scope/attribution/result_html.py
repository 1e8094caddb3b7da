"""How an attribution shows itself: tokens, and what its sites add up to."""

from collections.abc import Sequence

import numpy as np

from gemma_scope.display import table_html

_BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float] | np.ndarray) -> str:
  """Numbers as a line of bars, the smallest lowest; NaN is a blank.

  Args:
    values: Real numbers; what is nearly one number is drawn as one height.
  """
  array = np.asarray(values, np.float64)
  known = array[np.isfinite(array)]
  if not known.size:
    return " " * array.size
  low, high = known.min(), known.max()
  size = max(abs(low), abs(high), 1e-30)
  if high - low <= 1e-3 * size:
    place = np.full(array.shape, 0.5)
  else:
    place = (array - low) / (high - low)
  steps = len(_BARS) - 1
  return "".join(
    _BARS[round(steps * p)] if np.isfinite(p) and np.isfinite(v) else " "
    for p, v in zip(place, array)
  )


def conservation_html(
  names: Sequence[str],
  totals: np.ndarray,
  target: float,
  residuals: np.ndarray,
  title: str = "",
) -> str:
  """A table of what the relevance of each site adds up to, for one prompt.

  Args:
    names: [sites] addresses.
    totals: [sites] sums of relevance.
    target: The target's value.
    residuals: [sites] what is missing from what was promised; NaN if nothing
      was.
    title: What the table shows.
  """
  shares = totals / target if target else np.full(len(totals), np.nan)
  rows = [
    (
      name,
      float(total),
      _share(share),
      float(rest) if np.isfinite(rest) else "not promised",
    )
    for name, total, share, rest in zip(names, totals, shares, residuals)
  ]
  columns = ("site", "relevance", "of the target", "missing")
  line = sparkline(shares)
  return table_html(columns, rows, title=f"{title} {line}".strip())


def _share(share: float) -> str:
  return f"{100 * share:.4g} %" if np.isfinite(share) else ""
