"""TPP and SHIFT on made-up features that separate concepts, or mix them."""

import json

import numpy as np
import pytest

from gemma_scope.evals.dictionaries.concepts import Crossed, Labelled
from gemma_scope.evals.dictionaries.representations import (
  L2,
  Features,
  Represented,
)
from gemma_scope.evals.dictionaries.targeted import (
  helpful,
  shift,
  targeted_perturbation,
)

RNG = np.random.default_rng(0)
N = 240
CLASS = np.arange(N) % 3


def labelled(name, labels, classes):
  return Labelled(
    name, ((2, 5),) * len(labels), labels, classes, np.arange(N), False
  )


def separate(labels, count):
  """One feature for each class; x is what they write and some noise."""
  f = np.zeros((N, count + 2))
  f[np.arange(N), labels] = 6.0
  f[:, count:] = RNG.random((N, 2))
  w = np.eye(count + 2, 8)
  return Features("separate", f @ w + 0.1 * RNG.normal(size=(N, 8)), f, w)


def mixed(one):
  """The same vectors by features that are no classes."""
  q, _ = np.linalg.qr(RNG.normal(size=(8, 8)))
  return Features("mixed", one.vectors, one.vectors @ q.T, q)


def test_tpp_tells_separate_features_from_mixed_ones():
  one = separate(CLASS, 3)
  texts = labelled("made up", CLASS, ("a", "b", "c"))
  seen = Represented(texts, (one, mixed(one)))
  made = targeted_perturbation(seen, sizes=(1, 8))
  # A class without its feature looks like no class: its probe is at chance,
  # and the others do not mind.
  assert made.found["separate"][1].mean == pytest.approx(0.5, abs=0.05)
  assert made.found["mixed"][1].mean < 0.3
  # With everything taken out all probes are at chance: nothing is targeted.
  assert made.found["mixed"][8].mean == pytest.approx(0, abs=0.1)
  assert made.found["separate"][1].n == len(texts.split()[1])


def test_tpp_is_what_probes_lose():
  """Once more by loops, for one k."""
  one = separate(CLASS, 3)
  texts = labelled("made up", CLASS, ("a", "b", "c"))
  (fit, held), seen = texts.split(seed=1), Represented(texts, (one,), seed=1)
  found = targeted_perturbation(seen, sizes=[1]).found["separate"][1].mean
  from gemma_scope.analysis import probe_fits

  probes = [
    probe_fits.logistic(one.vectors[fit], CLASS[fit] == c, L2) for c in range(3)
  ]

  def accuracy(x, d):
    said = x[held] @ probes[d][0] > probes[d][1]
    own = CLASS[held] == d
    return (said[own].mean() + (~said[~own]).mean()) / 2

  total = 0.0
  for c in range(3):
    scores = []
    for j in range(5):
      gap = one.values[fit][CLASS[fit] == c, j].mean()
      gap -= one.values[fit][CLASS[fit] != c, j].mean()
      scores.append(gap * (one.writes[j] @ probes[c][0]))
    j = int(np.argmax(scores))
    without = one.vectors - np.outer(one.values[:, j], one.writes[j])
    for d in range(3):
      lost = accuracy(one.vectors, d) - accuracy(without, d)
      total += lost / 3 if c == d else -lost / 6
  assert found == pytest.approx(total, abs=1e-9)


def crossed():
  meant, other = np.arange(N) % 2, (np.arange(N) // 2) % 2
  return Crossed(
    labelled("tone", meant, ("good", "bad")),
    labelled("topic", other, ("film", "food")),
  )


def test_shift_takes_the_spurious_label_out():
  """The spurious one is stronger, so the biased probe goes by it."""
  texts = crossed()
  f = np.zeros((N, 6))
  f[np.arange(N), texts.intended.labels] = 1.0
  f[np.arange(N), 2 + texts.spurious.labels] = 4.0
  f[:, 4:] = RNG.random((N, 2))
  w = np.eye(6, 8)
  one = Features("separate", f @ w + 0.3 * RNG.normal(size=(N, 8)), f, w)
  seen = Represented(texts.intended, (one, mixed(one)))
  made = shift(seen, texts.spurious, sizes=(1, 2))
  assert made.found["separate"][2].mean > made.found["mixed"][2].mean
  assert made.found["separate"][2].mean > 0.3
  assert "tone without topic" in made.what


def test_features_are_ranked_by_what_they_write():
  f = np.array([[1.0, 0, 2], [1, 0, 2], [0, 1, 0], [0, 1, 0]])
  w = np.array([[1.0, 0], [-2.0, 0], [0.1, 5.0]])
  one = Features("", f @ w, f, w)
  labels = np.array([True, True, False, False])
  order = helpful(one, labels, np.array([1.0, 0.0]), np.arange(4))
  # gap * write: 1 * 1, -1 * -2, 2 * 0.1
  assert order.tolist() == [1, 0, 2]


def test_it_shows_itself():
  texts = labelled("made up", CLASS, ("a", "b", "c"))
  seen = Represented(texts, (separate(CLASS, 3),))
  made = targeted_perturbation(seen, sizes=(1,))
  assert made.table()[0] == ["representation", "k = 1"]
  content = json.loads(json.dumps(made.to_dict(), allow_nan=False))
  assert "separate" in content["found"]
  assert made.means() == {"separate": {"k = 1": made.found["separate"][1].mean}}
  assert "TPP of made up" in repr(made)
  assert "TPP" in made._repr_html_()
