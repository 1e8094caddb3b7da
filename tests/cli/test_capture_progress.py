"""What is shown while a capture runs."""

import io

import pytest
import rich.console

from gemma_scope.cli import capture_progress
from gemma_scope.cli.capture_progress import Work


def work(target=1000, before=100, fraction=None):
  return Work(target, 2_000_000, before, lambda: fraction)


@pytest.mark.parametrize(
  ("rows", "seconds", "text"),
  [
    (300, 10, "300 of 1,000 tokens  20 tokens/s  0.60 GB  0:00:35 left"),
    (1050, 10, "1,050 of 1,000 tokens  95 tokens/s  2.10 GB  0:00:00 left"),
    (100, 10, "100 of 1,000 tokens  0 tokens/s  0.20 GB"),
    (101, 10, "101 of 1,000 tokens  0 tokens/s  0.20 GB  2:29:50 left"),
  ],
)
def test_a_target(rows, seconds, text):
  assert work().describe(rows, seconds).strip() == text


def test_all_the_text():
  found = work(None, 0, 0.25).describe(500, 50)
  assert found == "500 tokens  10 tokens/s  1.00 GB  0:02:30 left"
  assert work(None, 0, 0.25).done(500) == 0.25
  assert work(None, 0, None).done(500) == 0


def test_a_log_gets_a_line_now_and_then(monkeypatch):
  clock = iter([0, 1, 2, 14.5, 16.5, 17, 40])
  monkeypatch.setattr(capture_progress.time, "monotonic", lambda: next(clock))
  out = io.StringIO()
  console = rich.console.Console(file=out, width=200)
  with capture_progress.shown(console, work()) as told:
    for rows in (200, 300, 400, 500, 600, 700):
      told(rows)
  lines = out.getvalue().splitlines()
  assert [line.split()[0] for line in lines] == ["200", "500", "700"]


def test_a_terminal_gets_a_bar():
  out = io.StringIO()
  console = rich.console.Console(file=out, width=200, force_terminal=True)
  with capture_progress.shown(console, work()) as told:
    told(300)
  assert "300 of 1,000 tokens" in out.getvalue()
