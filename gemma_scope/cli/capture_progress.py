"""How far a capture is: tokens, tokens a second, gigabytes, time left.

A bar on a terminal; elsewhere a line now and then, so that a log of a night
stays short.
"""

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import time

import rich.console
import rich.progress

_SECONDS_BETWEEN_LINES = 15.0


@dataclasses.dataclass(frozen=True)
class Work:
  """What is to be done.

  Attributes:
    target: Tokens that the store shall have; None for all the text.
    bytes_per_row: Bytes on the disk for a token.
    before: Tokens that were there when this run began.
    fraction: Says how much of the text is done; None where it has no end.
  """

  target: int | None
  bytes_per_row: int
  before: int
  fraction: Callable[[], float | None]

  def done(self, rows: int) -> float:
    """How much is done, from 0 to 1."""
    part = rows / self.target if self.target else self.fraction() or 0.0
    return min(part, 1.0)

  def describe(self, rows: int, seconds: float) -> str:
    """One line of numbers.

    Args:
      rows: Tokens in the store.
      seconds: How long this run takes by now.
    """
    of = f" of {self.target:,}" if self.target else ""
    rate = (rows - self.before) / max(seconds, 1e-9)
    gigabytes = rows * self.bytes_per_row / 1e9
    parts = [f"{rows:,}{of} tokens", f"{rate:,.0f} tokens/s"]
    return "  ".join([*parts, f"{gigabytes:.2f} GB", self._left(rows, seconds)])

  def _left(self, rows: int, seconds: float) -> str:
    whole = rows / max(self.done(rows), 1e-9)
    if rows <= self.before:
      return ""
    left = round((whole - rows) / (rows - self.before) * seconds)
    minutes, second = divmod(max(left, 0), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d} left"


@contextlib.contextmanager
def shown(
  console: rich.console.Console, work: Work
) -> Iterator[Callable[[int], None]]:
  """Yields the function to call with the number of tokens in the store.

  Args:
    console: Where to show it.
    work: What is to be done.
  """
  start = time.monotonic()
  if not console.is_terminal:
    yield _lines(console, work, start)
    return
  columns = (
    rich.progress.SpinnerColumn(),
    rich.progress.BarColumn(bar_width=24),
    rich.progress.TextColumn("{task.description}", markup=False),
  )
  with rich.progress.Progress(*columns, console=console, transient=True) as bar:
    task = bar.add_task("compiling", total=1.0)

    def report(rows: int) -> None:
      text = work.describe(rows, time.monotonic() - start)
      bar.update(task, description=text, completed=work.done(rows))

    yield report


def _lines(
  console: rich.console.Console, work: Work, start: float
) -> Callable[[int], None]:
  last = -_SECONDS_BETWEEN_LINES

  def report(rows: int) -> None:
    nonlocal last
    seconds = time.monotonic() - start
    if seconds - last >= _SECONDS_BETWEEN_LINES:
      console.print(work.describe(rows, seconds), markup=False)
      last = seconds

  return report
