"""What `explain` does with its options; the numbers are tested elsewhere."""

import json
import types
import webbrowser

import pytest

import gemma_scope as gs
from gemma_scope.attribution.attribute import METHODS
from gemma_scope.cli import explain
from gemma_scope.cli import main as cli
from gemma_scope.viz import terminal

PROMPT = "When Mary and John went to the store, John gave a drink to"


class FakeExplanation:
  """What the command line needs of an explanation."""

  def to_html(self):
    return "<p>page</p>"

  def to_dict(self):
    return {"predictions": [" Mary"]}


def render(explanation, console, *, report):
  console.print(f"summary of {report.name}")


@pytest.fixture
def calls(monkeypatch, tmp_path):
  """Replaces the model and the work; returns what they were asked."""
  asked = {}
  tokenizer = types.SimpleNamespace(encode=lambda text: text.split())

  def load(name, **options):
    asked["load"] = {"name": name, **options}
    return types.SimpleNamespace(tokenizer=tokenizer)

  def explanation(lm, text, **options):
    asked["explain"] = {"text": text, **options}
    options["progress"]("Attributing", 0.5)
    return FakeExplanation()

  monkeypatch.setattr(gs, "load", load, raising=False)
  monkeypatch.setattr(gs, "explain", explanation, raising=False)
  monkeypatch.setattr(terminal, "render", render)
  monkeypatch.setattr(webbrowser, "open", lambda url: asked.update(url=url))
  monkeypatch.chdir(tmp_path)
  return asked


def run(*arguments):
  return cli.main(["explain", *arguments])


def test_defaults(calls, tmp_path, capsys):
  assert run(PROMPT) == 0
  assert calls["load"]["name"] == "gemma-3-270m"
  assert calls["load"]["dtype"] == "float32"
  options = calls["explain"]
  assert options.pop("text") == PROMPT
  assert callable(options.pop("progress"))
  assert options == {
    "target": None,
    "against": None,
    "chat": False,
    "methods": None,
    "features": True,
  }
  page = tmp_path / "gemma-scope-explain.html"
  assert page.read_text() == "<p>page</p>"
  captured = capsys.readouterr()
  assert captured.out == "summary of gemma-scope-explain.html\n"
  assert captured.err.splitlines() == [
    "Loading gemma-3-270m",
    "Attributing",
    "Writing the report",
  ]
  assert "url" not in calls


def test_options_reach_the_library(calls):
  assert (
    run(
      *("--target", " Mary", "--against", " John", "--chat", "--system", "Be."),
      *("--methods", "one, two", "--model", "m", "--dtype", "bfloat16", PROMPT),
      "--no-features",
    )
    == 0
  )
  assert calls["load"]["name"] == "m"
  assert calls["load"]["dtype"] == "bfloat16"
  options = calls["explain"]
  assert (options["target"], options["against"]) == (" Mary", " John")
  assert options["chat"] == "Be."
  assert options["features"] is False
  assert options["methods"] == ("one", "two")


def test_json_on_stdout_is_all_there_is(calls, tmp_path, capsys):
  assert run(PROMPT, "--json", "-") == 0
  captured = capsys.readouterr()
  assert json.loads(captured.out) == {"predictions": [" Mary"]}
  page = tmp_path / "gemma-scope-explain.html"
  assert captured.err.endswith(f"Report: {page}\n")
  assert page.exists()


def test_json_file_goes_beside_the_summary(calls, tmp_path, capsys):
  assert run(PROMPT, "--json", "data.json", "--out", "page.html") == 0
  data = json.loads((tmp_path / "data.json").read_text())
  assert data == {"predictions": [" Mary"]}
  assert capsys.readouterr().out == "summary of page.html\n"
  names = sorted(path.name for path in tmp_path.iterdir())
  assert names == ["data.json", "page.html"]


def test_open_shows_the_report_or_says_where_it_is(calls, tmp_path, capsys):
  assert run(PROMPT, "--open", "--out", "a b.html") == 0
  assert calls["url"] == f"file://{tmp_path}/a%20b.html"
  assert "No browser was found" in capsys.readouterr().err


def test_prompt_with_a_dash_goes_after_two(calls):
  assert run("--", "-5 + 5 =") == 0
  assert calls["explain"]["text"] == "-5 + 5 ="


def test_prompt_file(calls, tmp_path):
  (tmp_path / "story.txt").write_text("Once upon\n")
  assert run("--prompt-file", "story.txt") == 0
  assert calls["explain"]["text"] == "Once upon"


def test_destination_is_checked_before_the_work(calls, capsys):
  assert run(PROMPT, "--out", "missing/page.html") == 2
  assert run(PROMPT, "--json", ".") == 2
  assert calls == {}


def test_long_prompt_is_refused_before_the_work(calls, capsys):
  assert run("a " * 20, "--max-tokens", "19") == 2
  assert "20 tokens" in capsys.readouterr().err
  assert "explain" not in calls


def test_chat_model_of_the_examples_is_one():
  assert explain.CHAT_MODEL.endswith("-it")
  assert explain.CHAT_MODEL in explain.HELP


def test_help_names_every_method(capsys):
  assert run("--help") == 0
  text = "".join(capsys.readouterr().out.split())
  assert all(name in text.replace("│", "") for name in METHODS)


@pytest.mark.real
def test_real_weights_from_prompt_to_report(tmp_path, capsys):
  page = tmp_path / "page.html"
  assert run(PROMPT, "--out", str(page), "--json", "-") == 0
  first = json.loads(capsys.readouterr().out)["predictions"][0]
  assert first["text"] == " Mary"
  assert "<html" in page.read_text()
