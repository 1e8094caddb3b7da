"""The summary in a terminal: colours, numbers without them, narrow widths."""

import io

from rich import cells
from rich import console as rich_console

from gemma_scope.viz import terminal


def write(explanation, *, width=90, colour=False, report=None):
  file = io.StringIO()
  console = rich_console.Console(
    file=file,
    width=width,
    force_terminal=colour,
    color_system="truecolor" if colour else None,
    legacy_windows=False,
  )
  terminal.render(explanation, console, report=report)
  return file.getvalue()


def test_colour_marks_the_tokens(explanation):
  text = write(explanation, colour=True)
  # Strongest for: full orange with black letters; numbers are not needed.
  assert "\x1b[38;2;0;0;0;48;2;230;97;1m Mary" in text
  assert "Mary[+" not in text
  assert "orange: for, blue: against" in text


def test_numbers_stand_in_for_colour(explanation):
  text = write(explanation)
  assert "\x1b" not in text
  score = explanation.attributions[0].scores[2]
  assert f"Mary[+{score:.2f}]" in text
  assert "orange" not in text
  # Faint tokens carry no number.
  assert " and John" in text


def test_it_says_the_main_things(explanation):
  text = write(explanation, report="/tmp/[x]/report.html")
  assert "continues with “Mary” (63.1%)" in text
  assert "·his          2.3%" in text
  assert "Integrated gradients" in text
  assert "attn_write[14]" in text
  assert "Report: /tmp/[x]/report.html" in text


def test_narrow_terminals_are_respected(explanation):
  text = write(explanation, width=36)
  assert max(map(cells.cell_len, text.splitlines())) <= 36
  assert "█" not in text


def test_long_prompts_show_their_end_and_the_strongest(long_explanation):
  text = write(long_explanation)
  assert "Strongest of all: " in text
  assert "<bos>" not in text
  assert len(text.splitlines()) < 80


def test_control_characters_do_not_reach_the_terminal(make):
  hostile = make(["<bos>", "\x1b]0;title\x07", " [bold]x[/bold]", "\u202e"])
  text = write(hostile)
  assert "\x1b" not in text
  assert "\x07" not in text
  assert "\u202e" not in text
  assert "[bold]x[/bold]" in text


def test_bars_without_unicode(explanation):
  file = io.TextIOWrapper(io.BytesIO(), encoding="latin-1", errors="replace")
  console = rich_console.Console(file=file, width=90)
  terminal.render(explanation, console)
  file.seek(0)
  assert "=====" in file.read()
