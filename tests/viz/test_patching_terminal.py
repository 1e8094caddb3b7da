"""The summary of a sweep in a terminal."""

import io

from rich import console

from gemma_scope.viz import patching_terminal

CORRUPT = ["<bos>", " Mary", "\x1b[31m", " to"]
CLEAN = ["<bos>", " John", "\x1b[31m", " to"]


def shown(report, width):
  file = io.StringIO()
  patching_terminal.render(
    report, console.Console(file=file, width=width), page="page.html"
  )
  return file.getvalue()


def test_strongest_of_each_kind(patching):
  text = shown(patching(CORRUPT, CLEAN), 120)
  assert "The strongest is resid_pre[5] at “to” (token 3)" in text
  assert text.count("resid_pre[") == 5 + 1
  assert text.count("head ") == 5
  assert "·Mary ← ·John (1)" in text
  assert "█" in text
  assert "\x1b" not in text
  assert text.rstrip().endswith("Report: page.html")


def test_narrow_terminals_get_no_bars(patching):
  assert "█" not in shown(patching(CORRUPT, CLEAN), 50)
