"""How a training run looks in the terminal."""

import io

import rich.console

from gemma_scope.cli import training_screen
from gemma_scope.training.metrics import Report


def report(count=2):
  numbers = {"l0": 31.4, "fvu": 0.125, "dead": 0.0, "mse": 0.2}
  members = {f"layer_{i}[x]": numbers | {"l0": i} for i in range(count)}
  return Report(50, 1000, 12_345.6, members)


def shown(terminal):
  console = rich.console.Console(
    file=io.StringIO(), width=100, force_terminal=terminal
  )
  with training_screen.screen(console) as watch:
    watch.say("Compiling")
    watch(report())
  return console.file.getvalue()


def test_one_line_a_report():
  assert shown(False).splitlines() == [
    "Compiling",
    "step 50/1000  12,346 rows/s  l0 0.5  fvu 0.125  dead 0",
  ]


def test_a_table_on_a_terminal():
  text = shown(True)
  assert "step 50/1000" in text
  assert "layer_1[x]" in text
  assert "0.125" in text
  assert "sparsity" not in text


def test_of_many_the_first_ones():
  table = training_screen.table(report(30))
  assert table.row_count == 25
