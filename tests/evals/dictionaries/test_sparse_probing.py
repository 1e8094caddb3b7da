"""Sparse probes on made-up features whose best ones are known."""

import json

import numpy as np
import pytest

from gemma_scope.errors import ConfigError
from gemma_scope.evals.dictionaries.concepts import Labelled
from gemma_scope.evals.dictionaries.representations import (
  Features,
  Represented,
)
from gemma_scope.evals.dictionaries.sparse_probing import (
  WHOLE,
  Task,
  probe_hits,
  rank,
  sparse_probes,
)

RNG = np.random.default_rng(0)
LABELS = np.repeat(np.arange(3), 60)
TEXTS = Labelled(
  "made up",
  ((2, 5),) * 180,
  LABELS,
  ("a", "b", "c"),
  np.arange(180),
  False,
)
X = RNG.normal(size=(180, 6)) + 4 * np.eye(6)[LABELS]


def one_hot():
  """Feature 10 + c is active on class c alone, the others are noise."""
  f = RNG.random((180, 16)) * (RNG.random((180, 16)) < 0.3)
  f[np.arange(180), 10 + LABELS] += 2
  f[:, 10:13] *= np.eye(3)[LABELS]
  return f


@pytest.fixture
def made():
  features = (
    Features("good", X, one_hot(), np.zeros((16, 6))),
    Features("noise", X, RNG.normal(size=(180, 16)), np.zeros((16, 6))),
  )
  return sparse_probes(Represented(TEXTS, features), sizes=(1, 3))


def test_the_features_of_a_class_are_found(made):
  assert [made.chosen["good"][c][0] for c in "abc"] == [10, 11, 12]
  assert made.accuracy("good", 1).mean == 1.0
  noise = made.accuracy("noise", 1)
  assert noise.low < 0.65
  assert made.accuracy(WHOLE).mean > 0.9
  difference = made.difference("good", "noise", 1)
  assert difference.low > 0.2
  assert difference.mean == pytest.approx(1 - noise.mean)


def test_both_labels_are_judged_on_equally_many(made):
  held = TEXTS.split()[1]
  assert len(made.right["good"][1]) == 2 * len(held)
  assert made.accuracy("good", 3).n == 2 * len(held)


def test_it_shows_itself(made):
  head, rows = made.table()
  assert head == ["representation", "k = 1", "k = 3", "k = 6"]
  assert [row[0] for row in rows] == ["good", "noise", WHOLE]
  assert rows[0][3] == "" == rows[2][1]  # 6 is the width of the vector
  assert rows[2][3] == str(made.accuracy(WHOLE))
  assert made.means()["good"]["k = 1"] == 1.0
  found = json.loads(json.dumps(made.to_dict(), allow_nan=False))
  assert found["accuracy"]["good"]["1"]["mean"] == 1.0
  assert "made up" in repr(made)
  assert "noise" in made._repr_html_()
  for name, k in (("good", 2), ("none", 1), ("good", None)):
    with pytest.raises(ConfigError, match="no such probe"):
      made.accuracy(name, k)


def test_rank_is_by_gap_in_deviations():
  values = RNG.normal(size=(80, 5)) * [1, 1000, 1, 1, 0]
  labels = np.arange(80) < 40
  values[labels, 2] += 3
  expected = []
  for column in values.T:
    gap = abs(column[:40].mean() - column[40:].mean())
    expected.append(gap / column.std() if column.std() else 0)
  order = rank(values, labels)
  assert order[0] == 2
  assert order[-1] == 4
  np.testing.assert_array_equal(order, np.argsort(-np.array(expected)))


def test_hits_are_of_texts_that_are_held_out():
  labels = np.arange(40) % 2 == 0
  x = np.where(labels, 1.0, -1.0)[:, None]
  x[30:] *= -1  # where it is held out, the sign is turned round
  task = Task(np.arange(30), np.arange(30, 40), labels)
  assert not probe_hits(x, task).any()
