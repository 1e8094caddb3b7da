"""How a training run looks in the terminal: a live table, or one line a report.

A row for each dictionary, a column for each number, and how far the run is. On
no terminal, one line a report for the whole run. All of it goes to standard
error.
"""

from collections.abc import Iterator
import contextlib
import statistics
from typing import Any

import rich.console
import rich.live
import rich.table
import rich.text

_COLUMNS = ("l0", "fvu", "dead", "mse", "sparsity", "learning_rate")
_MOST_ROWS = 24


class Screen:
  """Takes the reports of `gs.training.train`."""

  def __init__(self, console: rich.console.Console, live: Any):
    """Shows nothing yet.

    Args:
      console: Where lines go.
      live: A `rich.live.Live`, or None for lines.
    """
    self._console = console
    self._live = live

  def say(self, stage: str) -> None:
    """Tells what is being done before the first report."""
    if self._live is None:
      self._console.print(stage, markup=False)
    else:
      self._live.update(rich.text.Text(stage), refresh=True)

  def __call__(self, report: Any) -> None:
    """Shows a `training.Report`."""
    if self._live is None:
      self._console.print(line(report), markup=False, soft_wrap=True)
    else:
      self._live.update(table(report), refresh=True)


@contextlib.contextmanager
def screen(console: rich.console.Console) -> Iterator[Screen]:
  """Yields what shows reports, while the run goes on."""
  if not console.is_terminal:
    yield Screen(console, None)
    return
  with rich.live.Live(console=console, auto_refresh=False) as live:
    yield Screen(console, live)


def line(report: Any) -> str:
  """One report in one line: medians over all dictionaries."""
  members = list(report.members.values())
  medians = [
    f"{name} {statistics.median(m[name] for m in members):.4g}"
    for name in ("l0", "fvu", "dead")
  ]
  return (
    f"step {report.step}/{report.steps}  {report.rows_per_second:,.0f} rows/s"
    f"  {'  '.join(medians)}"
  )


def table(report: Any) -> rich.table.Table:
  """One report as a table; of many dictionaries the first ones."""
  shown = rich.table.Table(
    title=line(report).partition("  l0")[0], title_justify="left", box=None
  )
  shown.add_column("dictionary")
  members = report.members
  names = [c for c in _COLUMNS if any(c in m for m in members.values())]
  for name in names:
    shown.add_column(name.replace("_", " "), justify="right")
  for label in list(members)[:_MOST_ROWS]:
    own = members[label]
    cells = [f"{own[n]:.4g}" if n in own else "" for n in names]
    shown.add_row(rich.text.Text(label), *cells)
  if len(members) > _MOST_ROWS:
    shown.add_row(f"and {len(members) - _MOST_ROWS} more", *[""] * len(names))
  return shown
