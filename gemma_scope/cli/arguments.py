"""What the verbs share in reading their arguments."""

from collections.abc import Sequence
from typing import TypeVar

import tyro

Options = TypeVar("Options")


def parsed(
  options: type[Options], argv: Sequence[str], verb: str, description: str
) -> Options:
  """The options of a verb; ends the process where they make no sense.

  Args:
    options: The verb's dataclass; a flag that is on by default says so itself.
    argv: What follows the verb.
    verb: Its name.
    description: Of what it does, for its help.
  """
  return tyro.cli(
    options,
    args=argv,
    prog=f"gemma-scope {verb}",
    description=description,
    config=(tyro.conf.FlagCreatePairsOff,),
  )


def text_option(metavar: str):
  """An option whose absence needs no "(default: None)" in the help."""
  return tyro.conf.arg(metavar=metavar, help_behavior_hint="")


def flag_option():
  """The same for an option without a value."""
  return tyro.conf.arg(help_behavior_hint="")
