"""Pieces that summaries in a terminal are made of: plain text, tables, bars."""

from rich import box
from rich import console as rich_console
from rich import table as rich_table
from rich import text as rich_text

WIDE = 56  # columns; narrower terminals get no bars
BAR = 24  # columns of the longest bar


def plain(text: str, style: str = "") -> rich_text.Text:
  """Text that rich neither parses nor highlights."""
  return rich_text.Text(text, style=style)


def grid() -> rich_table.Table:
  """An empty table with a line under its head and nothing else."""
  return rich_table.Table(
    box=box.SIMPLE_HEAD, padding=(0, 1), show_edge=False, pad_edge=False
  )


def rgb(colour: tuple[int, ...] | list[int]) -> str:
  """A colour as rich spells it."""
  return f"rgb({','.join(map(str, colour))})"


def bar(
  fraction: float, colour: str, console: rich_console.Console
) -> rich_text.Text:
  """A bar of at most `BAR` columns, in eighths where the encoding has them."""
  eighths = round(8 * BAR * min(1.0, max(0.0, fraction)))
  if not console.encoding.startswith("utf"):
    return plain("=" * (eighths // 8), colour)
  rest = " ▏▎▍▌▋▊▉"[eighths % 8].strip()
  return plain("█" * (eighths // 8) + rest, colour)
