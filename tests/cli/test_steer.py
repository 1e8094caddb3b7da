"""What `steer` does with its options; the numbers are tested elsewhere."""

import json

import numpy as np
import pytest

import gemma_scope as gs
from gemma_scope.cli import main as cli
from gemma_scope.surgery.positions import Generated, Not
from gemma_scope.testing.tiny import tiny_config
from gemma_scope.testing.tiny import tiny_lm as make_lm

SITE = ("--site", "resid_post[1]")
PAIR = ("--toward", "Mary went", "--away", "Paris")


@pytest.fixture(scope="module")
def shallow():
  return make_lm(tiny_config(num_layers=2))


@pytest.fixture
def calls(monkeypatch, shallow, tmp_path):
  """Replaces the checkpoint by a tiny model; keeps what was generated how."""
  asked = {}
  real = gs.generate

  def generate(lm, text, **options):
    asked.update(text=text, **options)
    asked["found"] = real(lm, text, **options)
    return asked["found"]

  monkeypatch.setattr(gs, "load", lambda *a, **k: shallow, raising=False)
  monkeypatch.setattr(gs, "generate", generate, raising=False)
  monkeypatch.chdir(tmp_path)
  return asked


def run(*arguments):
  short = ("--max-new-tokens", "4")
  return cli.main(["steer", "John and", *arguments, *short])


def test_a_difference_of_means(calls, capsys):
  assert run(*SITE, *PAIR, "--scale", "3") == 0
  (edit,) = calls["steer"]
  assert edit.at == "resid_post[1]"
  assert edit.change.scale == 3
  assert edit.change.norm is None
  assert isinstance(edit.where.positions, Not)
  shown = capsys.readouterr().out
  assert "unsteered" in shown
  assert "steered" in shown
  assert "NLL" not in shown


def test_files_and_json(calls, capsys, tmp_path):
  (tmp_path / "good.txt").write_text("Mary went\n\nto Paris\n")
  (tmp_path / "more.txt").write_text("Paris is\nMary is\n")
  options = ("--toward", "good.txt", "--away", "John", "--json")
  saved = ("--save-direction", "d.npy", "--held-out", "more.txt")
  assert run(*SITE, *options, *saved, "--relative", "--only-generated") == 0
  (edit,) = calls["steer"]
  assert edit.change.norm > 0
  assert isinstance(edit.where.positions, Generated)
  assert calls["held_out"] == ["Paris is", "Mary is"]
  found = json.loads(capsys.readouterr().out)
  assert found["unsteered"] == calls["found"].unsteered.texts[0]
  assert found["steered"] == calls["found"].texts[0]
  effect = calls["found"].effect
  assert found["held_out_nll"]["change"] == pytest.approx(effect.change)
  behind = found["held_out_nll_behind_prompt"]
  assert behind["before"] != found["held_out_nll"]["before"]
  direction = np.load(tmp_path / "d.npy")
  np.testing.assert_array_equal(direction, edit.change.direction)
  assert run(*SITE, "--direction", "d.npy", "--held-out", "more.txt") == 0
  assert "NLL of held-out text" in capsys.readouterr().out


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (PAIR, "Steering needs a site"),
    (SITE, "Steering needs one direction"),
    ((*SITE, "--toward", "x"), "Steering needs one direction"),
    ((*SITE, *PAIR, "--direction", "d.npy"), "Steering needs one direction"),
    ((*SITE, "--direction", "none.npy"), "direction cannot be read"),
    ((*SITE, *PAIR, "--held-out", "none.txt"), "cannot be read"),
    ((*SITE, "--toward", "no.txt", "--away", "x"), "cannot be read"),
    (("--site", "resid_post[:]", *PAIR), "added at one site"),
    (("--site", "resid_post[7]", *PAIR), "has 2 layers"),
    ((*SITE, "--toward", "a", "--away", "a"), "must point somewhere"),
    ((*SITE, *PAIR, "--save-direction", "no/d.npy"), "does not exist"),
  ],
)
def test_mistakes(calls, capsys, arguments, message):
  assert run(*arguments) == 2
  shown = capsys.readouterr().err
  assert message in shown
  assert "instead:" in shown


def test_a_direction_of_another_width(calls, capsys):
  np.save("wide.npy", np.ones(31))
  assert run(*SITE, "--direction", "wide.npy") == 2
  assert "does not fit the site" in capsys.readouterr().err


def test_an_empty_file_of_texts(calls, capsys, tmp_path):
  (tmp_path / "empty.txt").write_text("\n\n")
  assert run(*SITE, "--toward", "empty.txt", "--away", "x") == 2
  assert "holds no text" in capsys.readouterr().err
