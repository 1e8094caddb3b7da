import io

import pytest
import rich.console

from gemma_scope.cli import progress


def _run(console):
  with progress.stages(console) as report:
    report("Loading [weights]", 0.0)
    report("Loading [weights]", 0.5)
    report("Attributing")
    report("Attributing", 1.0)


def test_one_plain_line_a_stage_where_nobody_watches():
  out = io.StringIO()
  _run(rich.console.Console(file=out))
  assert out.getvalue() == "Loading [weights]\nAttributing\n"


def test_live_line_is_gone_at_the_end():
  out = io.StringIO()
  _run(rich.console.Console(file=out, force_terminal=True, width=60))
  text = out.getvalue()
  assert "Attributing" in text
  assert text.endswith("\x1b[2K")  # the line is erased


def test_failure_goes_through():
  console = rich.console.Console(file=io.StringIO(), force_terminal=True)

  def fail():
    with progress.stages(console) as report:
      report("Loading")
      raise KeyError("from the work")

  with pytest.raises(KeyError, match="from the work"):
    fail()
