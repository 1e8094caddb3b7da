"""Numbers of representations by how many features k were used.

What sparse probing and targeted perturbation have in common: their tables,
their JSON values, and their means without intervals.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from gemma_scope.bootstrap import Interval

BySize = Mapping[str, Mapping[int, Interval]]
"""Representation -> k -> a number with its interval."""


def sizes_of(found: BySize) -> list[int]:
  """Every k that some representation has, rising."""
  return sorted({k for by_k in found.values() for k in by_k})


def table(found: BySize) -> tuple[list[str], list[list[str]]]:
  """Headings and a row for each representation; blank where it has no k."""
  sizes = sizes_of(found)
  rows = [
    [name, *(str(by_k.get(k, "")) for k in sizes)]
    for name, by_k in found.items()
  ]
  return ["representation", *(f"k = {k}" for k in sizes)], rows


def to_dict(found: BySize) -> dict[str, dict[str, Any]]:
  """The intervals as JSON values; None for what is not finite."""
  return {
    name: {str(k): _plain(interval) for k, interval in by_k.items()}
    for name, by_k in found.items()
  }


def means(found: BySize) -> dict[str, dict[str, float]]:
  """The numbers alone, by the headings of the table."""
  return {
    name: {f"k = {k}": interval.mean for k, interval in by_k.items()}
    for name, by_k in found.items()
  }


def _plain(interval: Interval) -> dict[str, float | int | None]:
  fields = interval.to_dict().items()
  return {name: v if np.isfinite(v) else None for name, v in fields}
