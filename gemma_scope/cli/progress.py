"""What a verb is doing just now: a live line on a terminal, else one a stage.

Everything goes to standard error, so that results can be piped.
"""

from collections.abc import Iterator
import contextlib
from typing import Protocol

import rich.console
import rich.progress


class Report(Protocol):
  """Is told how far the work is; cheap enough to be called often."""

  def __call__(self, stage: str, fraction: float | None = None) -> None:
    """Tells what is being done, and how much of it (0 to 1; None: unknown)."""


@contextlib.contextmanager
def stages(console: rich.console.Console) -> Iterator[Report]:
  """Yields the function to report to, while the work goes on.

  Args:
    console: Where to show it; on no terminal each stage is one plain line.
  """
  if not console.is_terminal:
    yield _lines(console)
    return
  columns = (
    rich.progress.SpinnerColumn(),
    rich.progress.TextColumn("{task.description}"),
    rich.progress.BarColumn(bar_width=24),
    rich.progress.TimeElapsedColumn(),
  )
  with rich.progress.Progress(*columns, console=console, transient=True) as bar:
    yield _live(bar)


def _lines(console: rich.console.Console) -> Report:
  last = ""

  def report(stage: str, fraction: float | None = None) -> None:
    del fraction
    nonlocal last
    if stage != last:
      console.print(stage, markup=False)
    last = stage

  return report


def _live(bar: rich.progress.Progress) -> Report:
  task = bar.add_task("", total=None)

  def report(stage: str, fraction: float | None = None) -> None:
    total = None if fraction is None else 1.0
    bar.update(task, description=stage, completed=fraction or 0.0, total=total)

  return report
