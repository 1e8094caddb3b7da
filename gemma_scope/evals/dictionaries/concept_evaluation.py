"""What looking for concepts returns: tables, means over sets of texts, JSON.

Intervals are over held-out texts, and stand beside each set's numbers; a mean
over sets has none, for sets are few and differ in kind.
"""

from collections.abc import Iterable, Iterator, Mapping
import dataclasses
import math
from typing import Any, Protocol

import numpy as np

from gemma_scope.display import frame_html, table_html
from gemma_scope.evals.dictionaries.evaluation import page_html
from gemma_scope.manifest import Manifest

# What a reader sees of each test.
TITLES: Mapping[str, str] = {
  "sparse_probing": "Accuracy of sparse probes",
  "absorption": "Absorption of first letters",
  "tpp": "Targeted perturbation (TPP)",
  "shift": "A spurious label taken out (SHIFT)",
}
NOTE = (
  "Absorption is better the lower, all else the higher. Texts are made of "
  "templates, easier than real ones: compare representations, not with "
  "published numbers."
)

Means = Mapping[str, Mapping[str, float]]
"""Representation -> heading -> number."""


class Result(Protocol):
  """What one test found on one set of texts."""

  def means(self) -> Means:
    """Its numbers without intervals."""
    ...

  def table(self) -> tuple[list[str], list[list[str]]]:
    """Headings and a row for each representation."""
    ...

  def to_dict(self) -> dict[str, Any]:
    """Everything as JSON values."""
    ...

  def _repr_html_(self) -> str: ...


@dataclasses.dataclass(frozen=True)
class Summary:
  """One test at one site, over all of its sets of texts.

  Attributes:
    title: What it is.
    head: Headings.
    rows: A row for each representation.
  """

  title: str
  head: list[str]
  rows: list[list[str]]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ConceptEvaluation:
  """Concepts that were looked for in SAEs and in their baselines.

  Attributes:
    found: Site -> test -> set of texts -> what was found.
    manifest: Versions, device, model, tests.
  """

  found: Mapping[str, Mapping[str, Mapping[str, Result]]]
  manifest: Manifest

  def summaries(self) -> Iterator[Summary]:
    """A table of means for every site and test."""
    for site, tests in self.found.items():
      for test, by_texts in tests.items():
        (first, *more) = by_texts
        over = f"mean over {1 + len(more)} sets of texts" if more else first
        title = f"{TITLES.get(test, test)} at {site}, {over}"
        yield _summary(title, mean_over(r.means() for r in by_texts.values()))

  def to_dict(self) -> dict[str, Any]:
    """Means, each set's numbers with intervals, and manifest as JSON."""
    sites = {
      site: {test: _test_to_dict(found) for test, found in tests.items()}
      for site, tests in self.found.items()
    }
    return {"sites": sites, "manifest": self.manifest.to_dict()}

  @property
  def note(self) -> str:
    """How to read the numbers."""
    return NOTE

  def to_html(self) -> str:
    """All tables as one self-contained page."""
    return page_html("Concepts in dictionaries", self._repr_html_())

  def __repr__(self) -> str:
    parts = []
    for one in self.summaries():
      lines = [", ".join(row) for row in (one.head, *one.rows)]
      parts.append("\n".join([one.title, *lines]))
    return "\n\n".join(parts)

  def _repr_html_(self) -> str:
    parts = [table_html(s.head, s.rows, s.title) for s in self.summaries()]
    for site, tests in self.found.items():
      each = [r._repr_html_() for one in tests.values() for r in one.values()]
      parts.append(frame_html("".join(each), f"Each set of texts at {site}"))
    return frame_html("".join(parts), note=self.note)


def mean_over(found: Iterable[Means]) -> dict[str, dict[str, float]]:
  """The mean of each number over several results that have it."""
  every: dict[str, dict[str, list[float]]] = {}
  for means in found:
    for name, numbers in means.items():
      for heading, value in numbers.items():
        every.setdefault(name, {}).setdefault(heading, []).append(value)
  return {
    name: {heading: float(np.mean(v)) for heading, v in numbers.items()}
    for name, numbers in every.items()
  }


def _summary(title: str, means: Means) -> Summary:
  heads = list(dict.fromkeys(h for own in means.values() for h in own))
  rows = [[n, *(_cell(own.get(h)) for h in heads)] for n, own in means.items()]
  return Summary(title, ["representation", *heads], rows)


def _cell(value: float | None) -> str:
  return "" if value is None else f"{value:.3f}"


def _test_to_dict(found: Mapping[str, Result]) -> dict[str, Any]:
  means = mean_over(result.means() for result in found.values())
  plain = {
    name: {h: v if math.isfinite(v) else None for h, v in numbers.items()}
    for name, numbers in means.items()
  }
  texts = {name: result.to_dict() for name, result in found.items()}
  return {"means": plain, "texts": texts}
