"""What the verbs share in reading their arguments."""

import dataclasses
from typing import Annotated

import pytest

from gemma_scope.cli.arguments import flag_option, parsed, text_option


@dataclasses.dataclass(frozen=True)
class Options:
  """Two of every kind."""

  name: Annotated[str | None, text_option("NAME")] = None
  """Whose it is."""

  loud: Annotated[bool, flag_option()] = False
  """Say it aloud."""


def test_options_are_read():
  assert parsed(Options, [], "tell", "Tells.") == Options()
  given = parsed(Options, ["--name", "x", "--loud"], "tell", "Tells.")
  assert given == Options("x", loud=True)


def test_help_names_the_verb_and_flags_have_no_twin(capsys):
  with pytest.raises(SystemExit) as ended:
    parsed(Options, ["--help"], "tell", "Tells what it was told.")
  assert not ended.value.code
  shown = capsys.readouterr().out
  assert "gemma-scope tell" in shown
  assert "Tells what it was told." in shown
  assert "--name NAME" in shown
  assert "--no-loud" not in shown
  assert "None" not in shown
