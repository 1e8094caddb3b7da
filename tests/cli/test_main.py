import atexit
import errno
import gc
import importlib
import os
import subprocess
import sys
import types

import pytest

import gemma_scope
from gemma_scope import errors
from gemma_scope.cli import main as cli


@pytest.fixture
def verb(monkeypatch):
  """Makes `gemma-scope try …` call a function of the test's."""

  def install(function):
    module = types.SimpleNamespace(main=function)
    monkeypatch.setitem(cli.VERBS, "try", cli.Verb("try_it", "", ""))
    monkeypatch.setattr(importlib, "import_module", lambda name: module)

  return install


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_help_names_every_verb_with_an_example(arguments, capsys):
  assert cli.main(arguments) == 0
  out = capsys.readouterr().out
  for name, verb in cli.VERBS.items():
    assert f"{name} " in out
    assert verb.purpose in out
    assert verb.example in out


def test_version(capsys):
  assert cli.main(["--version"]) == 0
  assert capsys.readouterr().out == f"gemma-scope {gemma_scope.__version__}\n"


@pytest.mark.parametrize("name", cli.VERBS)
def test_every_verb_has_help_with_examples(name, capsys):
  assert cli.main([name, "--help"]) == 0
  out = capsys.readouterr().out
  assert "Examples:" in out
  assert f"gemma-scope {name} " in out
  assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize(
  ("arguments", "advice"),
  [
    (["explian", "x"], "gemma-scope explain"),
    (["The", "sky"], 'gemma-scope explain "The sky"'),
  ],
)
def test_unknown_verb_is_told_the_right_one(arguments, advice, capsys):
  assert cli.main(arguments) == cli.BAD_INPUT
  assert advice in capsys.readouterr().err


def test_arguments_reach_the_verb(verb):
  seen = []
  verb(seen.extend)
  assert cli.main(["try", "a", "--b"]) == 0
  assert seen == ["a", "--b"]


def test_bad_input_is_told_in_three_parts_without_control(verb, capsys):
  def fail(_):
    raise errors.TextError(
      "It is [bold]wrong[/bold].", received="\x1b[2Ja\nb", instead="c"
    )

  verb(fail)
  assert cli.main(["try"]) == 2
  captured = capsys.readouterr()
  assert captured.out == ""
  assert "Error: It is [bold]wrong[/bold]." in captured.err
  assert "received: " in captured.err
  assert "instead:  c" in captured.err
  assert "\x1b" not in captured.err


def test_interrupt_is_130(verb, capsys):
  def interrupt(_):
    raise KeyboardInterrupt

  verb(interrupt)
  assert cli.main(["try"]) == 130
  assert "Interrupted" in capsys.readouterr().err


def test_refusal_of_the_machine_is_told_in_three_parts(verb, capsys):
  def fill(_):
    raise OSError(errno.ENOSPC, "No space left on device", "/some/file")

  verb(fill)
  assert cli.main(["try"]) == 2
  err = capsys.readouterr().err
  assert "no space left" in err
  assert "/some/file" in err
  assert "instead:" in err


@pytest.mark.parametrize("bug", [KeyError("x"), OSError(errno.EIO, "x")])
def test_bug_keeps_its_traceback(verb, bug):
  def fail(_):
    raise bug

  verb(fail)
  with pytest.raises(type(bug)):
    cli.main(["try"])


def _python(code, **kwargs):
  command = [sys.executable, "-c", code]
  return subprocess.run(command, capture_output=True, text=True, **kwargs)


@pytest.mark.parametrize("arguments", [["--help"], ["explain", "--help"]])
def test_help_starts_without_jax(arguments):
  code = (
    "import sys\n"
    "from gemma_scope.cli.main import main\n"
    f"assert main({arguments}) == 0\n"
    "assert 'jax' not in sys.modules\n"
  )
  done = _python(code)
  assert done.returncode == 0, done.stderr


def test_closed_pipe_ends_quietly():
  read, write = os.pipe()
  os.close(read)
  code = "import sys; from gemma_scope.cli.main import main; sys.exit(main())"
  done = subprocess.run(
    [sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE
  )
  os.close(write)
  assert (done.returncode, done.stderr) == (0, b"")


def test_terminal_without_unicode_gets_question_marks():
  code = "from gemma_scope.cli.main import main; main([])"
  env = os.environ | {"PYTHONIOENCODING": "ascii"}
  done = _python(code, env=env)
  assert done.returncode == 0, done.stderr
  assert "OPTIONS] ?" in done.stdout


def test_only_a_process_of_its_own_collects_rarely(verb, monkeypatch):
  found = []
  verb(found.append)
  monkeypatch.setattr(gc, "set_threshold", found.append)
  monkeypatch.setattr(atexit, "register", found.append)
  cli.main(["try", "a"])
  assert found == [["a"]]
  monkeypatch.setattr(sys, "argv", ["gemma-scope", "try", "b"])
  cli.main()
  assert found[1:] == [100_000, gc.freeze, ["b"]]
