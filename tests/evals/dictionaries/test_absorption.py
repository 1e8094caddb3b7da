"""Absorption in made-up latents that absorb by construction."""

import json

import numpy as np
import pytest

from gemma_scope.evals.dictionaries.absorption import (
  absorption,
  f1,
  main_latents,
)
from gemma_scope.evals.dictionaries.concepts import Labelled
from gemma_scope.evals.dictionaries.representations import (
  Features,
  Represented,
)

RNG = np.random.default_rng(0)
LETTERS = np.repeat(np.arange(2), 100)
TEXTS = Labelled(
  "letters", ((2, 5),) * 200, LETTERS, ("s", "t"), np.arange(200), False
)
D = 16
SNAKES = np.flatnonzero(LETTERS == 0)[::10]


def latents(absorbing):
  """Latents 0 and 1 are s and t, 2 is noise; each tenth word with s has one of
  its own besides.

  Where these absorb, latent 0 keeps silent there and they write it, too.
  """
  f = np.zeros((200, 3 + len(SNAKES)))
  f[np.arange(200), LETTERS] = 5
  f[:, 2] = RNG.random(200)
  f[SNAKES, np.arange(3, f.shape[1])] = 5
  w = np.eye(f.shape[1], D)
  if absorbing:
    f[SNAKES, 0] = 0
    w[3:, 0] = 1.0
  return f, w


def features(name, absorbing):
  f, w = latents(absorbing)
  x = f @ w + 0.5 * RNG.normal(size=(200, D))
  return Features(name, x, f, w)


@pytest.fixture
def found():
  every = features("absorbs", True), features("residual", False)
  return absorption(Represented(TEXTS, every))


def test_what_is_absorbed_is_found(found):
  held = TEXTS.split()[1]
  snakes = np.isin(held, SNAKES)
  share = snakes.sum() / (LETTERS[held] == 0).sum()
  assert snakes.sum() > 0
  assert found.by_class["absorbs"]["s"] == pytest.approx(share)
  assert found.by_class["absorbs"]["t"] == 0
  absorbed = found.absorbed["absorbs"]
  assert absorbed.value == pytest.approx(snakes.sum() / len(held))
  assert found.missed["absorbs"].value == absorbed.value
  assert found.main["absorbs"]["t"] == (1,)


def test_baselines_have_no_latents_that_could_be_silent(found):
  assert list(found.missed) == ["absorbs"]


def test_without_absorption_there_is_none():
  found = absorption(Represented(TEXTS, (features("honest", False),)))
  assert found.missed["honest"].value == 0
  assert found.absorbed["honest"].value == 0


def test_missed_alone_is_not_absorbed():
  """The latent that fires instead does not write the letter."""
  f, w = latents(True)
  w[3:, 0] = 0.0
  x = f @ w + 0.5 * RNG.normal(size=(200, D))
  x[:, 0] += 5 * (LETTERS == 0) * (f[:, 0] == 0)  # in the error of the SAE
  one = Features("fails", x, f, w)
  found = absorption(Represented(TEXTS, (one,)))
  assert found.missed["fails"].value > 0
  assert found.absorbed["fails"].value == 0


def test_it_shows_itself(found):
  assert found.table()[1][0][0] == "absorbs"
  content = json.loads(json.dumps(found.to_dict(), allow_nan=False))
  assert content["absorbs"]["main"]["t"] == [1]
  assert "absorbs" in repr(found)
  means = found.means()["absorbs"]
  assert means["absorbed"] == found.absorbed["absorbs"].value
  assert means["main latents a letter"] >= 1
  assert "Absorption" in found._repr_html_()


def test_a_latent_is_main_as_long_as_it_helps():
  labels = np.arange(120) < 60
  f = np.zeros((120, 3))
  f[:30, 0] = 1
  f[30:60, 1] = 1
  f[:, 2] = RNG.random(120)
  fit, held = np.arange(0, 120, 2), np.arange(1, 120, 2)
  assert set(main_latents(f, labels, fit, held)) == {0, 1}


def test_f1():
  said = np.array([True, True, True, False, False])
  labels = np.array([True, True, False, True, False])
  assert f1(said, labels) == pytest.approx(2 / 3)
  assert f1(np.zeros(3, bool), np.zeros(3, bool)) == 0
