"""A patching sweep in a terminal: what was measured and the strongest cells."""

import os

from rich import console as rich_console
from rich import table as rich_table

from gemma_scope import display
from gemma_scope.attribution.patching.result import Cell
from gemma_scope.viz.patching import PatchingReport
from gemma_scope.viz.patching_page import (
  finding_sentence,
  share,
  strongest_of_each,
)
from gemma_scope.viz.terminal_parts import WIDE, bar, grid, plain, rgb

_CELLS = 5  # of each site name


def render(
  report: PatchingReport,
  console: rich_console.Console,
  *,
  page: str | os.PathLike[str] | None = None,
) -> None:
  """Writes a summary of a sweep to a console.

  Args:
    report: What to write about.
    console: Where to; its width and colours are respected.
    page: Where the whole report was written, to be named at the end.
  """
  console.print(plain(finding_sentence(report.sweep.best(1)), "bold"))
  console.print(plain(report.question))
  console.print()
  console.print(plain("Strongest activations of each kind", "bold"))
  console.print(_cells(strongest_of_each(report.sweep, _CELLS), console))
  if page is not None:
    console.print()
    path = display.visible(os.fspath(page))
    console.print(plain(f"Report: {path}"), soft_wrap=True)


def _cells(
  cells: list[Cell], console: rich_console.Console
) -> rich_table.Table:
  """One row a cell: where it is, its effect, its share."""
  table = grid()
  table.add_column("activation", overflow="fold")
  table.add_column("token", overflow="fold")
  table.add_column("effect", justify="right", no_wrap=True)
  table.add_column("share", justify="right", no_wrap=True)
  wide = console.width >= WIDE
  if wide:
    table.add_column("", no_wrap=True)
  most = max((abs(cell.effect) for cell in cells), default=1.0) or 1.0
  for cell in cells:
    row = [
      plain(cell.label),
      plain(_token(cell)),
      plain(display.signed(cell.effect)),
      plain(share(cell.normalised)),
    ]
    if wide:
      colour = display.POSITIVE if cell.effect > 0 else display.NEGATIVE
      row.append(bar(abs(cell.effect) / most, rgb(colour), console))
    table.add_row(*row)
  return table


def _token(cell: Cell) -> str:
  """The token of a cell; `base ← source` where the prompts differ."""
  if cell.position is None:
    return "all"
  shown = display.visible(cell.token, spaces=True)
  if cell.source_token != cell.token:
    shown += f" ← {display.visible(cell.source_token, spaces=True)}"
  return f"{shown} ({cell.position})"
