"""Text that is not parsed, and bars of a length."""

import io

import pytest
from rich import console

from gemma_scope.viz.terminal_parts import BAR, bar, plain, rgb


@pytest.mark.parametrize(
  ("fraction", "shown"),
  [(1.0, "█" * BAR), (0.5, "█" * (BAR // 2)), (0.0, ""), (7.0, "█" * BAR)],
)
def test_bars(fraction, shown):
  file = console.Console(file=io.StringIO())
  assert bar(fraction, rgb((1, 2, 3)), file).plain == shown


def test_text_is_taken_literally():
  assert plain("[bold]x[/]").plain == "[bold]x[/]"
  assert rgb((1, 2, 3)) == "rgb(1,2,3)"
