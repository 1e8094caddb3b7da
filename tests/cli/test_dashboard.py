"""`gemma-scope dashboard`: options, refusals, files."""

import json

import pytest

import gemma_scope as gs
from gemma_scope import testing
from gemma_scope.cli import dashboard as verb
from gemma_scope.cli import main as cli
from gemma_scope.dictionaries import suite as suites
from gemma_scope.testing.latents import random_suite
from gemma_scope.testing.tiny import tiny_config
from gemma_scope.viz import dashboard as viz


@pytest.fixture
def here(tmp_path, monkeypatch):
  """A folder, and a package with a small suite in it."""
  path = random_suite(tmp_path / "suite.zip")
  monkeypatch.setattr(suites, "PATH", path)
  monkeypatch.chdir(tmp_path)
  return tmp_path


@pytest.fixture
def stored(here, monkeypatch):
  """The tiny tokenizer in the place of the published model's."""
  lm = testing.tiny_lm(tiny_config(num_layers=3))

  def show(name, latent):
    suite = gs.dictionaries.starter()
    return viz.stored_dashboard(lm.tokenizer, suite, name, latent)

  monkeypatch.setattr(verb, "_stored", show)
  return here


def run(*arguments):
  return cli.main(["dashboard", *arguments])


def test_a_site_s_latent_at_once(stored, capsys):
  given = ("--latent", "5", "--json", "d.json", "--neuronpedia", "n.json")
  assert run("--site", "resid_post[1]", *given) == 0
  out = capsys.readouterr().out
  assert out.startswith("resid_post[1].latents[5]\nmade-up words\n")
  page = (stored / "gemma-scope-dashboard.html").read_text()
  assert "made-up words" in page
  data = json.loads((stored / "d.json").read_text())
  assert data["info"]["index"] == 5
  fields = json.loads((stored / "n.json").read_text())
  assert fields["layer"] == "starter/resid_post/layer_1"


def test_json_on_stdout_is_all_there_is(stored, capsys):
  name = "starter/transcoder/layer_2"
  assert run("--dictionary", name, "--latent", "0", "--json", "-") == 0
  captured = capsys.readouterr()
  assert json.loads(captured.out)["info"]["dictionary"] == name


def test_measured_on_text(here, monkeypatch, capsys):
  lm = testing.tiny_lm(tiny_config(num_layers=3))
  monkeypatch.setattr(gs, "load", lambda name, progress=None: lm, raising=False)
  text = here / "text.jsonl"
  rows = [{"text": " the capital of France is Paris" * 3}] * 20
  text.write_text("\n".join(map(json.dumps, rows)))
  given = ("--site", "mlp_write[1]", "--latent", "2", "--data", "text.jsonl")
  assert run(*given, "--tokens", "100") == 0
  assert "measured on the given text" in capsys.readouterr().out


@pytest.mark.parametrize(
  ("arguments", "says"),
  [
    (("--latent", "5"), "received: neither"),
    (
      ("--site", "resid_post[1]", "--dictionary", "x", "--latent", "5"),
      "received: both",
    ),
    (("--site", "resid_post[1]"), "Say which latent"),
    (("--site", "resid_post[2]", "--latent", "64"), "from 0 to 63"),
    (("--site", "resid_post[7]", "--latent", "5"), "resid_post[2]"),
    (
      ("--site", "resid_post[1]", "--latent", "5", "--tokens", "0"),
      "--tokens 0",
    ),
  ],
)
def test_refusals(stored, capsys, arguments, says):
  assert run(*arguments) == 2
  assert says in capsys.readouterr().err


def test_other_dictionaries_need_text(here, capsys):
  assert run("--dictionary", "./mine", "--latent", "5") == 2
  assert "--data text.jsonl" in capsys.readouterr().err


def test_until():
  class Batch:
    num_counted = 40

  assert len(list(verb.until([Batch()] * 9, 100))) == 3
  assert len(list(verb.until([Batch()] * 2, 100))) == 2
