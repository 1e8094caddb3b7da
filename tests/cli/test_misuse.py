"""Ways to misuse the program: each gets three parts, exit code 2, no traceback.

What loads weights for real is refused before any are read; the other rows run
on a tiny random model that goes by the name of a pretrained one.
"""

import dataclasses
import errno
import os
import re
import subprocess
import sys
import types

import numpy as np
import pytest

import gemma_scope as gs
from gemma_scope import errors
from gemma_scope.cli import main as cli

PROMPT = "The sky is"

# id: (arguments, what the message must say); {tmp} is the folder of `world`.
REFUSED_BY_THE_LOADER = {
  "wrong model name": (["--model", "gemma-3-271m"], "gemma-3-270m"),
  "model path is missing": (["--model", "{tmp}/none.gguf"], "none.gguf"),
  "half a GGUF": (["--model", "{tmp}/half.gguf"], "half.gguf"),
  "empty GGUF": (["--model", "{tmp}/empty.gguf"], "empty.gguf"),
  "folder is no checkpoint": (["--model", "{tmp}/folder"], "folder"),
  "corrupt safetensors": (["--model", "{tmp}/corrupt"], "corrupt"),
  "bad dtype": (["--dtype", "float7"], "float32"),
}
REFUSED_BEFORE_LOADING = {
  "no prompt": ([], "no prompt"),
  "empty prompt": ([""], "prompt is empty"),
  "unquoted prompt": (["The", "sky"], "quotes around it"),
  "prompt file is missing": (["--prompt-file", "{tmp}/none"], "cannot be read"),
  "prompt file is a folder": (["--prompt-file", "{tmp}"], "cannot be read"),
  "prompt is not UTF-8": (["--prompt-file", "{tmp}/latin1.txt"], "UTF-8"),
  "prompt is an image": (["{tmp}/cat.png"], "image"),
  "image as prompt file": (["--prompt-file", "{tmp}/cat.png"], "image"),
  "NUL in the prompt": (["a\0b"], r"U\+0000"),
  "lone surrogate": (["a\udce9b"], r"U\+DCE9"),
  "two prompts": ([PROMPT, "--prompt-file", "{tmp}/ok.txt"], "two prompts"),
  "out is a folder": ([PROMPT, "--out", "{tmp}"], "names a folder"),
  "out has no folder": ([PROMPT, "--out", "{tmp}/a/b.html"], "does not exist"),
  "out lies under a file": (
    [PROMPT, "--out", "{tmp}/ok.txt/b.html"],
    "does not exist",
  ),
  "json is a folder": ([PROMPT, "--json", "{tmp}"], "--json names a folder"),
  "no method": ([PROMPT, "--methods", ","], "names no method"),
}
REFUSED_BY_EXPLAIN = {
  "prompt of 40,000 tokens": (["--prompt-file", "{tmp}/long.txt"], "too long"),
  "target of two tokens": ([PROMPT, "--target", " blue and grey"], "token"),
  "empty target": ([PROMPT, "--target", ""], "target"),
  "target against itself": (
    [PROMPT, "--target", "a", "--against", "a"],
    "two different tokens",
  ),
  "chat with a pretrained model": ([PROMPT, "--chat"], "chat"),
  "system without chat": ([PROMPT, "--system", "Be brief."], "chat"),
  "unknown method": ([PROMPT, "--methods", "guessing"], "guessing"),
}
UNPARSABLE = {
  "misspelt option": [PROMPT, "--modle", "x"],
  "number that is none": [PROMPT, "--max-tokens", "many"],
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
  """A folder with one of everything that is wrong."""
  folder = tmp_path_factory.mktemp("misuse")
  (folder / "ok.txt").write_text(PROMPT)
  (folder / "latin1.txt").write_bytes("Zürich".encode("latin-1"))
  (folder / "cat.png").write_bytes(b"\x89PNG\r\n\x1a\n")
  (folder / "long.txt").write_text("a b " * 20_000)
  counts = np.array([236, 40], "<u8").tobytes()  # of tensors, of key values
  (folder / "half.gguf").write_bytes(b"GGUF\3\0\0\0" + counts)
  (folder / "empty.gguf").write_bytes(b"")
  (folder / "folder").mkdir()
  (folder / "folder" / "notes.txt").write_text("no weights here")
  (folder / "corrupt").mkdir()
  header = np.array([2], "<u8").tobytes() + b"{]"
  (folder / "corrupt" / "model.safetensors").write_bytes(header)
  return folder


@pytest.fixture
def tiny(tiny_lm, monkeypatch):
  """Loads a tiny model, whichever is asked for."""
  named = dataclasses.replace(tiny_lm, name="gemma-3-270m")
  monkeypatch.setattr(gs, "load", lambda *_, **__: named)
  return named


def assert_refused(arguments, message, world, capsys):
  given = [text.replace("{tmp}", str(world)) for text in arguments]
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(world)
    assert cli.main(["explain", *given]) == 2
  assert not list(world.glob("**/*.html*"))
  captured = capsys.readouterr()
  assert captured.out == ""
  what, received, instead = parts(captured.err)
  assert all((what, received, instead))
  assert "Traceback" not in captured.err
  assert re.search(message, captured.err), captured.err


def parts(err):
  """The three parts of the message that ends what went to stderr."""
  _, _, message = err.rpartition("Error: ")
  what, _, rest = message.partition("\n  received: ")
  received, _, instead = rest.partition("\n  instead:  ")
  return what, received, instead


@pytest.mark.parametrize("case", REFUSED_BEFORE_LOADING)
def test_refused_before_loading(case, world, capsys, monkeypatch):
  monkeypatch.setattr(gs, "load", None, raising=False)
  assert_refused(*REFUSED_BEFORE_LOADING[case], world, capsys)


@pytest.mark.parametrize("case", REFUSED_BY_THE_LOADER)
def test_refused_by_the_loader(case, world, capsys):
  arguments, message = REFUSED_BY_THE_LOADER[case]
  assert_refused([PROMPT, *arguments], message, world, capsys)


@pytest.mark.parametrize("case", REFUSED_BY_EXPLAIN)
def test_refused_by_explain(case, world, tiny, capsys):
  assert_refused(*REFUSED_BY_EXPLAIN[case], world, capsys)


@pytest.mark.parametrize("case", UNPARSABLE)
def test_refused_by_the_parser(case, capsys):
  assert cli.main(["explain", *UNPARSABLE[case]]) == 2
  err = capsys.readouterr().err
  assert "gemma-scope explain --help" in err
  assert "Traceback" not in err


def test_disk_is_full(world, tiny, capsys, monkeypatch):
  def full(_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  page = types.SimpleNamespace(to_html=lambda: "<p>page</p>")
  monkeypatch.setattr(gs, "explain", lambda *_, **__: page)
  monkeypatch.setattr(os, "fsync", full)
  assert_refused([PROMPT], "No space left", world, capsys)


def test_folder_is_read_only(world, capsys, monkeypatch):
  # Permission bits would not stop a test that runs as root.
  monkeypatch.setattr(os, "access", lambda *_: False)
  assert_refused([PROMPT], "cannot be written", world, capsys)


def test_cache_is_read_only(world, capsys, monkeypatch):
  def read_only(*_, **__):
    raise OSError(errno.EROFS, os.strerror(errno.EROFS), "/cache")

  monkeypatch.setattr(gs, "load", read_only)
  assert_refused([PROMPT], "/cache", world, capsys)


@pytest.mark.parametrize(
  "arguments", [["explain", ""], ["explain", "x", "--model", "gemma-3-271m"]]
)
def test_as_a_process(arguments, tmp_path):
  code = "import sys; from gemma_scope.cli.main import main; sys.exit(main())"
  done = subprocess.run(
    [sys.executable, "-c", code, *arguments],
    cwd=tmp_path,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2, done.stderr
  assert all(parts(done.stderr))
  assert "Traceback" not in done.stderr
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ("sites", "message"),
  [
    (["resid_poost[0]"], "resid_post"),
    (["resid_post[99]"], "99"),
    (["resid_post[-99]"], "-99"),
  ],
)
def test_site_that_is_none(sites, message, tiny_lm):
  with pytest.raises(errors.SiteError, match=message):
    gs.capture(tiny_lm, PROMPT, sites=sites)


def test_ids_past_the_context(tiny_lm):
  ids = np.ones(40_000, np.int32)
  with pytest.raises(errors.TextError, match="40,000"):
    gs.capture(tiny_lm, ids, sites=["embed"])
