"""The command `gemma-scope`: finds the verb, runs it, tells what went wrong.

Verbs are files beside this one. Nothing here imports JAX, so that help and
misspelt verbs answer at once. Exit codes: 0 done, 2 bad input, 130 interrupted;
a bug keeps its traceback.
"""

import atexit
from collections.abc import Mapping, Sequence
import dataclasses
import difflib
import errno
import gc
import importlib
import os
import sys

import rich.text

from gemma_scope import __version__, display
from gemma_scope.cli import consoles
from gemma_scope.errors import ConfigError, GemmaScopeError

_OBJECTS_BETWEEN_COLLECTIONS = 100_000  # Python's 700 is for small programs
BAD_INPUT = 2
INTERRUPTED = 130


@dataclasses.dataclass(frozen=True)
class Verb:
  """One verb of the command line.

  Attributes:
    module: The module that offers `main(argv)`, imported when it is needed.
    purpose: What it does, in one line.
    example: A command that can be pasted as it is.
  """

  module: str
  purpose: str
  example: str


VERBS: Mapping[str, Verb] = {
  "explain": Verb(
    "gemma_scope.cli.explain",
    "Why does the model say this next? One prompt, one report.",
    'gemma-scope explain "The capital of France is"',
  ),
  "steer": Verb(
    "gemma_scope.cli.steer",
    "What does the model write with a direction added to its activations?",
    'gemma-scope steer "I am" --site "z[9]" --toward joy --away grief',
  ),
  "patch": Verb(
    "gemma_scope.cli.patch",
    "Which activations carry the difference between two prompts?",
    'gemma-scope patch "The king and the" "The boy and the"',
  ),
  "capture": Verb(
    "gemma_scope.cli.capture",
    "Activations of a text at many sites, kept on the disk.",
    'gemma-scope capture --data text.jsonl --sites "z[9]" --out store',
  ),
  "train": Verb(
    "gemma_scope.cli.train",
    "Sparse dictionaries, trained on a text or a store of activations.",
    'gemma-scope train --data text.jsonl --sites "z[9]" --out run',
  ),
  "eval": Verb(
    "gemma_scope.cli.eval",
    "How good are dictionaries? L0, FVU, delta loss on held-out text.",
    "gemma-scope eval run/z_9_l0_32 --data held_out.jsonl",
  ),
  "dashboard": Verb(
    "gemma_scope.cli.dashboard",
    "What is this latent of a sparse dictionary? Its texts, on one page.",
    'gemma-scope dashboard --site "resid_post[12]" --latent 17',
  ),
  "plan": Verb(
    "gemma_scope.cli.plan",
    "Does it fit a machine? Memory, FLOPs and time, without the machine.",
    "gemma-scope plan capture --machine v5e:2x2",
  ),
}

# What the machine, not the program, refuses: told in three parts too.
_REMEDIES: Mapping[int, str] = {
  errno.ENOSPC: "free some space, or name a folder on another disk",
  errno.EDQUOT: "free some space, or name a folder on another disk",
  errno.EACCES: "a file or folder that you may read and write",
  errno.EPERM: "a file or folder that you may read and write",
  errno.EROFS: "a folder that can be written",
}


def main(argv: Sequence[str] | None = None) -> int:
  """Runs one command and returns its exit code.

  Args:
    argv: The arguments after the program's name; by default the process's.
  """
  arguments = list(sys.argv[1:] if argv is None else argv)
  if argv is None:
    _collect_rarely()
  _never_fail_to_print()
  try:
    _dispatch(arguments)
    sys.stdout.flush()
  except GemmaScopeError as error:
    _show_error(error)
    return BAD_INPUT
  except SystemExit as stop:  # the parser's: it has said why
    return stop.code if isinstance(stop.code, int) else 0
  except KeyboardInterrupt:
    consoles.messages().print("Interrupted; no file was left half-written.")
    return INTERRUPTED
  except BrokenPipeError:  # the reader has what it wanted
    _discard_stdout()
  except OSError as error:
    if error.errno not in _REMEDIES:
      raise
    _show_error(_machine_error(error))
    return BAD_INPUT
  return 0


def _collect_rarely() -> None:
  """Spares a process of its own most of Python's searches for garbage.

  Tracing makes millions of objects and few cycles: looking for these as often
  as Python does takes a second of an `explain`, a third of it at the exit.
  """
  gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
  atexit.register(gc.freeze)


def _dispatch(arguments: list[str]) -> None:
  """Hands the rest of the line to its verb, or answers itself."""
  first = arguments[0] if arguments else "--help"
  if first in ("-h", "--help", "help"):
    consoles.results().print(_help())
  elif first in ("-V", "--version"):
    consoles.results().print(f"gemma-scope {__version__}")
  elif first in VERBS:
    importlib.import_module(VERBS[first].module).main(arguments[1:])
  else:
    near = difflib.get_close_matches(first, VERBS, n=1)
    prompt = f'gemma-scope explain "{" ".join(arguments)}"'
    raise ConfigError(
      "No verb has this name.",
      received=first,
      instead=f"gemma-scope {near[0]}" if near else f"{prompt}, or --help",
    )


def _help() -> rich.text.Text:
  """The page of `gemma-scope --help`."""
  page = rich.text.Text()
  page.append("gemma-scope", style="bold")
  page.append(": look inside Gemma 3, in JAX.\n\n")
  page.append("usage: gemma-scope VERB [OPTIONS] …\n\n")
  for name, verb in VERBS.items():
    page.append(f"  {name:<10}", style="bold")
    page.append(f"{verb.purpose}\n")
    page.append(f"            $ {verb.example}\n", style="dim")
  page.append(
    "\ngemma-scope VERB --help lists a verb's options, with examples."
  )
  page.append("\ngemma-scope --version says which version this is.")
  page.append("\nIn Python: import gemma_scope as gs; help(gs)")
  return page


def _show_error(error: GemmaScopeError) -> None:
  """Prints the three parts; none of them can steer the terminal."""
  page = rich.text.Text()
  page.append("Error: ", style="bold red")
  page.append(_printable(error.what))
  page.append("\n  received: ", style="dim")
  page.append(_printable(error.received))
  page.append("\n  instead:  ", style="dim")
  page.append(_printable(error.instead), style="green")
  consoles.messages().print(page)


def _printable(text: str) -> str:
  """Keeps line breaks, shows every other control character."""
  return "\n            ".join(map(display.visible, text.splitlines()))


def _machine_error(error: OSError) -> GemmaScopeError:
  reason = os.strerror(error.errno or 0)
  return GemmaScopeError(
    f"The operating system refused: {reason[:1].lower()}{reason[1:]}.",
    received=error.filename or "(it named no file)",
    instead=_REMEDIES[error.errno or 0],
  )


def _never_fail_to_print() -> None:
  """Lets a terminal that lacks a character show `?`, not an exception."""
  for stream in (sys.stdout, sys.stderr):
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
      reconfigure(errors="replace")


def _discard_stdout() -> None:
  """Points stdout nowhere, so that the exit's flush does not fail again."""
  nowhere = os.open(os.devnull, os.O_WRONLY)
  os.dup2(nowhere, sys.stdout.fileno())
  os.close(nowhere)
