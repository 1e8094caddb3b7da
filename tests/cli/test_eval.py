"""`gemma-scope eval`: options reach the library, results reach the files."""

import json

import numpy as np
import pytest

import gemma_scope as gs
from gemma_scope import testing
from gemma_scope.cli import main as cli
from gemma_scope.testing import dictionaries as make
from gemma_scope.testing.tiny import tiny_config

CONFIG = tiny_config(num_layers=2)


def run(*arguments: str) -> int:
  return cli.main(["eval", *arguments])


@pytest.fixture
def world(tmp_path, monkeypatch):
  """A folder with text and two dictionaries; a tiny model for any name."""
  monkeypatch.chdir(tmp_path)
  loaded = {}

  def load(name, *, dtype, progress):
    loaded.update(name=name, dtype=dtype)
    progress("weights")
    return testing.tiny_lm(CONFIG)

  monkeypatch.setattr(gs, "load", load)
  monkeypatch.setattr(
    "gemma_scope.cli.compiled.keep_compiled_programs", lambda: None
  )
  for seed in (0, 1):
    sae = make.random_sae(layer=1, seed=seed)
    gs.dictionaries.dictionary_to_folder(sae, tmp_path / f"sae_{seed}")
  lines = [json.dumps({"text": "and the city is in Paris " * 4})] * 6
  (tmp_path / "text.jsonl").write_text("\n".join(lines))
  return loaded


SMALL = ("--data", "text.jsonl", "--seq-len", "32", "--batch", "2")


def test_from_folders_to_report(world, tmp_path, capsys):
  arguments = ["sae_0", "sae_1", *SMALL, "--tokens", "63", "--json", "n.json"]
  assert run(*arguments, "--loss-tokens", "1", "--model", "m") == 0
  assert world == {"name": "m", "dtype": "float32"}
  shown = capsys.readouterr()
  for word in ("sae_0", "sae_1", "fvu", "delta_loss", "gemma-scope-eval.html"):
    assert word in shown.out
  assert "Evaluating" in shown.err
  found = json.loads((tmp_path / "n.json").read_text())
  assert list(found["dictionaries"]) == ["sae_0", "sae_1"]
  assert 63 <= found["tokens"] <= 2 * 62
  one = found["dictionaries"]["sae_0"]["numbers"]
  # Losses stop with the first batch, the rest does not.
  assert one["delta_loss"]["n"] == 2 < one["fvu"]["n"]
  assert found["manifest"]["model"] == "tiny"
  page = (tmp_path / "gemma-scope-eval.html").read_text()
  assert page.startswith("<!doctype html>")
  assert "sae_1" in page
  assert "<script" not in page


def test_without_losses_and_as_json(world, capsys):
  assert run("sae_0", *SMALL, "--no-losses", "--json", "-") == 0
  found = json.loads(capsys.readouterr().out)
  numbers = found["dictionaries"]["sae_0"]["numbers"]
  assert "fvu" in numbers
  assert "delta_loss" not in numbers
  assert np.isfinite(numbers["l0"]["mean"])


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--data", "text.jsonl"], "no dictionary to evaluate"),
    (["sae_0"], "no text to evaluate on"),
    (["sae_0", *SMALL, "--out", "."], "names a folder"),
    (["sae_0", "--data", "none.txt"], "no such file"),
    (["./sae_7", *SMALL], "no such folder"),
  ],
)
def test_misuse_is_refused_before_the_work(world, capsys, arguments, message):
  assert run(*arguments) == 2
  assert message in capsys.readouterr().err
  assert not world


def test_a_set_of_transcoders_is_one_for_each_layer(monkeypatch):
  from gemma_scope.cli import eval as verb

  both = tuple(make.random_transcoder(layer=i) for i in (0, 1))
  monkeypatch.setattr(gs.dictionaries, "load", lambda name: both)
  found = verb._load(["set"], lambda label: None)
  assert list(found) == ["set mlp_in[0]", "set mlp_in[1]"]
  assert list(found.values()) == list(both)
