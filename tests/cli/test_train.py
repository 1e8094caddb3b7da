"""What `train` does with its options; training is tested elsewhere."""

import json
import types

import pytest

import gemma_scope as gs
from gemma_scope import testing
from gemma_scope.cli import main as cli
from gemma_scope.cli import train as verb
from gemma_scope.testing.tiny import tiny_config

SMALL = ("--width", "16", "--l0", "2", "--steps", "2", "--log-every", "1")


@pytest.fixture(scope="module")
def shallow():
  return testing.tiny_lm(tiny_config(num_layers=2))


@pytest.fixture
def folder(monkeypatch, shallow, tmp_path):
  """A folder with a text; the model is a tiny one."""
  monkeypatch.setattr(gs, "load", lambda name, **_: shallow, raising=False)
  monkeypatch.chdir(tmp_path)
  line = json.dumps({"text": " Mary gave a drink to John"})
  (tmp_path / "text.jsonl").write_text("\n".join([line] * 60))
  return tmp_path


@pytest.fixture
def asked(monkeypatch, folder):
  """Keeps what training was asked for, and trains nothing."""
  kept = types.SimpleNamespace()

  def train(config, source, out, *, watch):
    kept.config, kept.source, kept.out, kept.watch = config, source, out, watch
    return types.SimpleNamespace(dictionaries={"one": None})

  monkeypatch.setattr(gs.training, "train", train)
  return kept


def run(*arguments):
  return cli.main(["train", *arguments])


def test_from_a_text_to_a_folder(folder, capsys):
  options = ("--batch", "64", "--seq-len", "16", "--buffer", "512")
  data = ("--data", "text.jsonl", "--sites", "resid_post[1]", "--out", "run")
  assert run(*data, *SMALL, *options) == 0
  shown = capsys.readouterr()
  assert shown.out.split() == ["run/resid_post_1_l0_2"]
  assert "step 2/2" in shown.err
  found = gs.dictionaries.load("run/resid_post_1_l0_2")
  assert found.about.model == "tiny"
  assert found.num_latents == 16


def test_from_a_store(folder, asked):
  capture = ("capture", "--data", "text.jsonl", "--out", "acts", "--seq-len")
  sites = ("16", "--batch", "2", "--sites", "resid_post[0,1]")
  assert cli.main([*capture, *sites]) == 0
  assert run("--store", "acts", "--sites", "resid_post[:]", *SMALL) == 0
  labels = [m.label for m in asked.config.groups[0].members]
  assert labels == ["resid_post_0_l0_2", "resid_post_1_l0_2"]
  assert asked.source.batch_rows == 4096
  assert asked.config.model == "tiny"


def test_options_reach_the_configuration(asked):
  data = ("--data", "text.jsonl", "--sites", "mlp_in[0]->mlp_write[0],z[0,1]")
  sweep = ("--l0", "2,4", "--lr", "1e-3", "--seed", "3,4", "--affine-skip")
  more = ("--preset", "top_k", "--precision", "bfloat16", "--out", "there")
  assert run(*data, *sweep, *more, "--batch", "128", "--seq-len", "16") == 0
  through, heads = asked.config.groups
  assert through.architecture.affine_skip
  assert len(through.members) == 4
  assert len(heads.members) == 8
  assert {m.seed for m in heads.members} == {3, 4}
  assert asked.config.precision == "bfloat16"
  assert asked.config.heads == 4
  assert (asked.out, asked.source.seed) == ("there", 3)


def test_the_starter_suite_has_sites_of_its_own(asked):
  options = ("--batch", "128", "--seq-len", "16")
  assert run("--preset", "starter", "--data", "text.jsonl", *options) == 0
  assert [len(g.members) for g in asked.config.groups] == [2, 2]


def test_layers_of_the_suite():
  assert verb._four_layers(18) == [5, 9, 12, 15]
  assert verb._four_layers(12) == [4, 6, 8, 10]


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ((), "rows from a store, or texts"),
    (("--store", "a", "--data", "b"), "rows from a store, or texts"),
    (("--data", "text.jsonl"), "--sites names nothing"),
    (("--data", "text.jsonl", "--sites", "z[0],"), "--sites names nothing"),
    (
      ("--data", "text.jsonl", "--sites", "z[0]", "--l0", "few"),
      "--l0 takes numbers",
    ),
    (
      ("--data", "text.jsonl", "--sites", "z[0]", "--preset", "best"),
      "No recipe has this name",
    ),
  ],
)
def test_misuse(arguments, message, asked, capsys):
  assert run(*arguments) == cli.BAD_INPUT
  assert message in capsys.readouterr().err
