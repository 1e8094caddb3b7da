"""The two places a command speaks to: results on stdout, the rest on stderr."""

from typing import NoReturn

import rich.console


class _Results(rich.console.Console):
  """Leaves a closed pipe to `main`; rich would exit with 1."""

  def on_broken_pipe(self) -> NoReturn:
    raise BrokenPipeError


def results() -> rich.console.Console:
  """Returns the console for what was asked for."""
  return _Results(highlight=False)


def messages() -> rich.console.Console:
  """Returns the console for progress, notes and errors."""
  return rich.console.Console(stderr=True, highlight=False, soft_wrap=True)
