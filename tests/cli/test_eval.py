"""`gemma-scope eval`: options reach the library, results reach the files."""

import functools
import json

import numpy as np
import pytest

import gemma_scope as gs
from gemma_scope import testing
from gemma_scope.cli import main as cli
from gemma_scope.evals import dictionaries as evals
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


@pytest.fixture
def few_words(monkeypatch):
  """Concepts of one small set of texts."""
  narrow = functools.partial(evals.evaluate_concepts, sets=["part of speech"])
  monkeypatch.setattr(evals, "evaluate_concepts", narrow)


def test_concepts_need_no_text(world, few_words, tmp_path, capsys):
  both = ("sae_0", "sae_1", "--concepts", "sparse_probing, tpp")
  assert run(*both, "--json", "n.json", "--seed", "3") == 0
  shown = capsys.readouterr()
  for word in ("sae_1", "neurons", "PCA", "whole vector", "k = 20", "(TPP)"):
    assert word in shown.out
  assert "Concepts: tpp, part of speech at resid_post[1]" in shown.err
  found = json.loads((tmp_path / "n.json").read_text())
  assert list(found) == ["concepts"]
  assert found["concepts"]["manifest"]["seed"] == 3
  tests = found["concepts"]["sites"]["resid_post[1]"]
  assert list(tests) == ["sparse_probing", "tpp"]
  accuracy = tests["sparse_probing"]["texts"]["part of speech"]["accuracy"]
  assert list(accuracy)[:2] == ["sae_0", "sae_1"]
  assert 0 <= accuracy["sae_0"]["1"]["mean"] <= 1
  page = (tmp_path / "gemma-scope-eval.html").read_text()
  assert "Sparse probes of part of speech" in page


def test_concepts_stand_beside_the_numbers_on_text(world, few_words, capsys):
  arguments = ["sae_0", *SMALL, "--no-losses", "--concepts", "tpp"]
  assert run(*arguments, "--json", "-") == 0
  found = json.loads(capsys.readouterr().out)
  assert "fvu" in found["dictionaries"]["sae_0"]["numbers"]
  assert list(found["concepts"]["sites"]["resid_post[1]"]) == ["tpp"]


def test_all_concepts_are_every_test():
  from gemma_scope.cli import eval as verb

  every = ("sparse_probing", "absorption", "tpp", "shift")
  assert verb._concept_tests("all") == every
  assert verb._concept_tests("shift,all")[0] == "shift"
  assert verb._concept_tests(None) == ()


def test_concepts_are_not_looked_for_in_transcoders(world, tmp_path, capsys):
  transcoder = make.random_transcoder(layer=1)
  gs.dictionaries.dictionary_to_folder(transcoder, tmp_path / "tc")
  assert run("sae_0", "tc", "--concepts", "all") == 2
  assert "received: tc: transcoder" in capsys.readouterr().err
  assert not world


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--data", "text.jsonl"], "no dictionary to evaluate"),
    (["sae_0"], "no text to evaluate on"),
    (["sae_0", *SMALL, "--out", "."], "names a folder"),
    (["sae_0", "--data", "none.txt"], "no such file"),
    (["./sae_7", *SMALL], "no such folder"),
    (["sae_0", "--concepts", "tpp,scr"], "received: 'scr'\n  instead:  one or"),
    (["sae_0", "--concepts", ","], "no such test of concepts"),
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
