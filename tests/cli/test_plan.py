"""What `plan` does with its options; the numbers are tested elsewhere."""

import json
import types

import pytest

from gemma_scope import planning
from gemma_scope.cli import main as cli
from gemma_scope.cli import plan


class FakePlan:
  """What the command line needs of a plan."""

  def to_dict(self):
    return {"fits": True}

  def __str__(self):
    return "needed on a chip  1.00 GiB"


@pytest.fixture
def calls(monkeypatch, tmp_path):
  """Replaces the compiler; returns what was asked."""
  asked = {}

  def step(name):
    def make(shape, *given):
      asked[name] = (shape, *given)
      return types.SimpleNamespace(shape=shape)

    return make

  monkeypatch.setattr(planning, "capture_step", step("capture"))
  monkeypatch.setattr(planning, "attribute_step", step("attribute"))
  monkeypatch.setattr(planning, "graph_step", step("graph"))

  def training(config, model, machine, *, rows):
    asked["train"] = (config, model, rows)
    return FakePlan()

  monkeypatch.setattr(planning, "plan_training", training)
  monkeypatch.setattr(planning, "plan_step", lambda step: FakePlan())
  monkeypatch.setattr(planning, "largest_batch", lambda step: 24)
  monkeypatch.chdir(tmp_path)
  return asked


def run(*arguments):
  return cli.main(["plan", *arguments])


def test_a_capture(calls, capsys):
  given = ("--batch", "4", "--tokens", "64", "--sites", "embed, z[3]")
  assert run("capture", "--machine", "cpu", *given) == 0
  shape, sites = calls["capture"]
  assert (shape.batch, shape.tokens, shape.dtype) == (4, 64, "bfloat16")
  assert shape.model == plan.DEFAULT_MODEL
  assert sites == ["embed", "z[3]"]
  assert "1.00 GiB" in capsys.readouterr().out


def test_an_attribution_as_json(calls, tmp_path, capsys):
  assert run("attribute", "--method", "cp_lrp", "--suggest", "--json", "-") == 0
  _, method, sites = calls["attribute"]
  assert (method, sites) == ("cp_lrp", ["resid_post[:]"])
  found = json.loads(capsys.readouterr().out)
  assert found == {"fits": True, "largest_batch": 24}
  assert run("attribute", "--json", "plan.json") == 0
  assert json.loads((tmp_path / "plan.json").read_text()) == {"fits": True}


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (("capture", "--mesh", "8"), "two numbers"),
    (("capture", "--machine", "abacus"), "no such machine"),
    (("capture", "--mesh", "3x5"), "does not fit"),
  ],
)
def test_bad_input(calls, arguments, message, capsys):
  assert run(*arguments) == cli.BAD_INPUT
  assert message in capsys.readouterr().err


def test_help_is_worth_reading(capsys):
  assert run("--help") == 0
  text = capsys.readouterr().out
  assert "--machine" in text
  assert plan.LARGE_MODEL in text


def test_a_row_of_a_graph(calls):
  assert run("graph", "--machine", "cpu", "--batch", "2") == 0
  (shape,) = calls["graph"]
  assert shape.batch == 2
  assert run("graph", "--sites", "embed,mlp_write[3,5]") == 0
  assert calls["graph"][1] == ["embed", "mlp_write[3,5]"]


def test_training(calls):
  given = ("--sites", "resid_post[5,9]", "--width", "64", "--batch", "4096")
  assert run("train", *given) == 0
  config, model, rows = calls["train"]
  assert (model, rows) == (plan.DEFAULT_MODEL, 4096)
  assert [str(site) for site in config.sites] == [
    "resid_post[5]",
    "resid_post[9]",
  ]
  assert config.groups[0].architecture.width == 64


def test_no_batch_is_suggested_for_training(calls, capsys):
  assert run("train", "--sites", "resid_post[5]", "--suggest") == 2
  assert "train --suggest" in capsys.readouterr().err
