"""What `patch` does with its options; the numbers are tested elsewhere."""

import json
import types

import pytest

import gemma_scope as gs
from gemma_scope.cli import main as cli
from gemma_scope.cli.patch import split_sites
from gemma_scope.errors import ConfigError
from gemma_scope.sites import SITES
from gemma_scope.viz import patching_terminal

CLEAN = "When Mary and John went to the store, John gave a drink to"
CORRUPT = "When Mary and John went to the store, Mary gave a drink to"


class FakeReport:
  """What the command line needs of a report."""

  def to_html(self):
    return "<p>page</p>"

  def to_dict(self):
    return {"strongest": []}


@pytest.fixture
def calls(monkeypatch, tmp_path):
  """Replaces the model and the work; returns what they were asked."""
  asked = {}
  tokenizer = types.SimpleNamespace(encode=lambda text: text.split())

  def load(name, **options):
    asked["load"] = {"name": name, **options}
    return types.SimpleNamespace(tokenizer=tokenizer)

  def report(lm, clean, corrupt, **options):
    asked["patch"] = {"clean": clean, "corrupt": corrupt, **options}
    return FakeReport()

  def render(report, console, *, page):
    console.print(f"summary of {page.name}")

  monkeypatch.setattr(gs, "load", load, raising=False)
  monkeypatch.setattr(gs, "patching_report", report, raising=False)
  monkeypatch.setattr(patching_terminal, "render", render)
  monkeypatch.chdir(tmp_path)
  return asked


def run(*arguments):
  return cli.main(["patch", *arguments])


def test_defaults(calls, tmp_path, capsys):
  assert run(CLEAN, CORRUPT) == 0
  options = calls["patch"]
  assert callable(options.pop("progress"))
  assert options == {
    "clean": CLEAN,
    "corrupt": CORRUPT,
    "target": None,
    "against": None,
    "at": ("resid_pre[:]", "attn_write[:]", "mlp_write[:]"),
    "noising": False,
  }
  assert (tmp_path / "gemma-scope-patch.html").read_text() == "<p>page</p>"
  assert capsys.readouterr().out == "summary of gemma-scope-patch.html\n"


def test_options_reach_the_library(calls, capsys):
  arguments = ["--target", " Mary", "--against", " John", "--noising"]
  arguments += ["--sites", "z, pattern[1,4]", "--json", "-"]
  assert run(CLEAN, CORRUPT, *arguments, "--model", "m") == 0
  options = calls["patch"]
  assert (options["target"], options["against"]) == (" Mary", " John")
  assert options["noising"]
  assert options["at"] == ("z[:]", "pattern[1,4]")
  assert calls["load"]["name"] == "m"
  assert json.loads(capsys.readouterr().out) == {"strongest": []}


@pytest.mark.parametrize(
  ("text", "expected"),
  [
    ("z", ["z[:]"]),
    ("embed, z[3]", ["embed", "z[3]"]),
    ("z[1,4,7],key[:],", ["z[1,4,7]", "key[:]"]),
    ("blocks.3.hook_z", ["blocks.3.hook_z"]),
  ],
)
def test_sites_between_commas(text, expected):
  assert split_sites(text) == tuple(expected)


def test_no_site_is_refused():
  with pytest.raises(ConfigError, match="names no site"):
    split_sites(" , ")


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ([], "needs two prompts"),
    ([CLEAN], "needs two prompts"),
    ([CLEAN, ""], "The prompt is empty"),
    ([CLEAN, CORRUPT, "--out", "."], "names a folder"),
    ([CLEAN, CORRUPT, "--sites", ","], "names no site"),
    ([CLEAN, CORRUPT, "--max-tokens", "3"], "too long"),
  ],
)
def test_misuse_is_refused_before_the_work(calls, capsys, arguments, message):
  assert run(*arguments) == 2
  assert message in capsys.readouterr().err
  assert "patch" not in calls


def test_help_names_every_site(capsys):
  assert run("--help") == 0
  text = capsys.readouterr().out.replace("│", "")
  words = "".join(text.split())
  behind = ("final_norm", "logits")
  assert all(name in words for name in SITES if name not in behind)
  assert "--noising" in words


@pytest.mark.real
def test_real_weights_from_prompts_to_report(tmp_path, capsys):
  page = tmp_path / "page.html"
  arguments = ["--sites", "resid_pre[6]", "--out", str(page), "--json", "-"]
  assert run(CLEAN, CORRUPT, *arguments) == 0
  found = json.loads(capsys.readouterr().out)
  assert (found["target"], found["against"]) == (" Mary", " John")
  first = found["strongest"][0]
  assert first["position"] == 10
  assert first["normalised"] > 0.9
  assert "<html" in page.read_text()
