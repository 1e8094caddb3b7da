"""What an evaluation of dictionaries returns: tables, curves, intervals.

Rows of the text are the unit of every interval (see `ratio`). A difference of
two dictionaries is taken row by row, so it is known better than either.
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import html
import math
from typing import Any

import numpy as np

from gemma_scope.bootstrap import Interval
from gemma_scope.display import frame_html, matrix_html, table_html
from gemma_scope.errors import ConfigError
from gemma_scope.evals.dictionaries.protocol import Findings
from gemma_scope.evals.dictionaries.ratio import Ratio
from gemma_scope.manifest import Manifest

# What a table shows, as far as it was measured, and how many digits of it.
COLUMNS: Mapping[str, str] = {
  "l0": ".1f",
  "fvu": ".4f",
  "cosine": ".3f",
  "delta_loss": ".4f",
  "recovered": ".3f",
  "dead": ".1%",
  "dense": ".1%",
  "nearest": ".3f",
}


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Evaluated(Findings):
  """Everything that was found of one dictionary.

  Attributes:
    about: What the dictionary is.
  """

  about: str = ""

  @classmethod
  def joined(cls, about: str, findings: Sequence[Findings]) -> "Evaluated":
    """The findings of all metrics together.

    Raises:
      ConfigError: Two metrics give a number of the same name.
    """
    fields = ("ratios", "values", "curves", "arrays")
    merged: dict[str, dict[str, Any]] = {field: {} for field in fields}
    for one in findings:
      for field in fields:
        for name, value in getattr(one, field).items():
          if name in merged[field]:
            raise ConfigError(
              "Two metrics give a number of the same name.",
              received=name,
              instead="each metric once",
            )
          merged[field][name] = value
    return cls(**merged, about=about)

  def interval(self, name: str) -> Interval:
    """One number with its 95 % interval over rows.

    Raises:
      ConfigError: There is none of this name that has an interval.
    """
    return self.ratio(name).interval()

  def ratio(self, name: str) -> Ratio:
    """One number as sums over rows, to compare it with another.

    Raises:
      ConfigError: There is none of this name that has an interval.
    """
    if name not in self.ratios:
      raise ConfigError(
        "No such number with an interval was measured.",
        received=name,
        instead=f"one of {', '.join(self.ratios) or 'none'}",
      )
    return self.ratios[name]

  def __getitem__(self, name: str) -> float:
    """One number.

    Raises:
      ConfigError: There is none of this name.
    """
    if name in self.values:
      return self.values[name]
    return self.ratio(name).value

  def cell(self, name: str) -> str:
    """A number as a table shows it; empty if it was not measured."""
    form = COLUMNS.get(name, ".4g")
    if name in self.values:
      return format(self.values[name], form)
    if name not in self.ratios:
      return ""
    return format(self.interval(name), form)

  def to_dict(self) -> dict[str, Any]:
    """All numbers as JSON values; long arrays as their histograms alone."""
    return {
      "about": self.about,
      "numbers": {n: r.to_dict() for n, r in self.ratios.items()}
      | {n: _finite(v) for n, v in self.values.items()},
      "curves": {
        name: {str(at): ratio.to_dict() for at, ratio in curve.items()}
        for name, curve in self.curves.items()
      },
      "histograms": {
        name: np.asarray(value).tolist()
        for name, value in self.arrays.items()
        if name.endswith((" histogram", " edges"))
      },
    }


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Evaluation(Mapping[str, Evaluated]):
  """Dictionaries by name, measured on the same text.

  Attributes:
    found: Name -> what was found.
    tokens: How many tokens counted.
    rows: How many rows of text there were.
    manifest: Versions, device, model, metrics.
  """

  found: Mapping[str, Evaluated]
  tokens: int
  rows: int
  manifest: Manifest

  def __getitem__(self, name: str) -> Evaluated:
    """What was found of one dictionary.

    Raises:
      ConfigError: There is none of this name.
    """
    if name not in self.found:
      raise ConfigError(
        "No dictionary of this name was evaluated.",
        received=str(name),
        instead=f"one of {', '.join(self.found)}",
      )
    return self.found[name]

  def __iter__(self) -> Iterator[str]:
    return iter(self.found)

  def __len__(self) -> int:
    return len(self.found)

  def difference(self, a: str, b: str, number: str) -> Interval:
    """A number of `a` minus that of `b`, paired by row, with its interval."""
    return self[a].ratio(number).minus(self[b].ratio(number))

  def table(
    self, columns: Sequence[str] = tuple(COLUMNS)
  ) -> tuple[list[str], list[list[str]]]:
    """Headings and one row for each dictionary.

    Args:
      columns: Names of numbers; those nobody measured are left out.
    """
    there = [
      c
      for c in columns
      if any(c in one.ratios or c in one.values for one in self.values())
    ]
    rows = [[n, *(one.cell(c) for c in there)] for n, one in self.items()]
    return ["dictionary", *there], rows

  def to_dict(self) -> dict[str, Any]:
    """Numbers with intervals, curves, histograms and manifest as JSON."""
    return {
      "tokens": self.tokens,
      "rows": self.rows,
      "dictionaries": {name: one.to_dict() for name, one in self.items()},
      "manifest": self.manifest.to_dict(),
    }

  def __repr__(self) -> str:
    head, rows = self.table()
    cells = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = [
      "  ".join(c.ljust(w) for c, w in zip(row, widths)).rstrip()
      for row in cells
    ]
    return "\n".join([*lines, self.note])

  @property
  def note(self) -> str:
    """How much text, and what the brackets are."""
    return (
      f"{self.tokens:,} tokens in {self.rows} rows; brackets are 95 % "
      "bootstrap intervals over rows."
    )

  def to_html(self) -> str:
    """All tables and heat maps as one self-contained page."""
    return page_html("Dictionaries on held-out text", self._repr_html_())

  def _repr_html_(self) -> str:
    head, rows = self.table()
    parts = [table_html(head, rows, title="Dictionaries on held-out text")]
    parts += [self._curve_html(name) for name in self._curve_names()]
    for name in ("density", "nearest"):
      parts.append(self._histogram_html(name))
    return frame_html("".join(parts), note=self.note)

  def _curve_names(self) -> list[str]:
    names = [name for one in self.values() for name in one.curves]
    return list(dict.fromkeys(names))

  def _curve_html(self, name: str) -> str:
    curves = {n: o.curves[name] for n, o in self.items() if name in o.curves}
    places = sorted({at for curve in curves.values() for at in curve})
    rows = [
      [n, *(_shown(curve.get(at)) for at in places)]
      for n, curve in curves.items()
    ]
    return table_html(["dictionary", *map(str, places)], rows, title=name)

  def _histogram_html(self, name: str) -> str:
    """A heat map: dictionaries by bins, each row as shares of its latents."""
    key, edges = f"{name} histogram", f"{name} edges"
    having = {n: one.arrays for n, one in self.items() if key in one.arrays}
    if not having:
      return ""
    shares = [a[key] / max(a[key].sum(), 1) for a in having.values()]
    ends = next(iter(having.values()))[edges]
    labels = [f"{low:.2g}" for low in ends[:-1]]
    title = {
      "density": "Share of living latents by log10 of their density",
      "nearest": "Share of latents by cosine to the nearest other",
    }[name]
    return matrix_html(np.stack(shares), list(having), labels, title=title)


def page_html(title: str, body: str) -> str:
  """A block of HTML as a page of its own, without scripts or network."""
  return (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width">'
    '<meta name="color-scheme" content="light dark">'
    f"<title>{html.escape(title)}</title></head>"
    f'<body style="margin:1.5em">{body}</body></html>\n'
  )


def _shown(ratio: Ratio | None) -> str:
  return "" if ratio is None else f"{ratio.value:.4g}"


def _finite(value: float) -> float | None:
  return value if math.isfinite(value) else None
