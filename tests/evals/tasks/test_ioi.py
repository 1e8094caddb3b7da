"""IOI: one token differs, and it is the second mention of a name."""

import itertools

import pytest

from gemma_scope.evals.tasks import ioi
from gemma_scope.evals.tasks.ioi import _pairs


def test_pairs():
  for pair in itertools.islice(_pairs(0), 50):
    (right,), (wrong,) = pair.right, pair.wrong
    words = (pair.clean.split(), pair.corrupt.split())
    differ = [(a, b) for a, b in zip(*words) if a != b]
    assert differ == [(wrong.strip(), right.strip())]
    assert pair.clean.count(wrong.strip()) == 2
    assert pair.clean.count(right.strip()) == 1


def test_seed():
  def first(seed):
    return list(itertools.islice(_pairs(seed), 5))

  assert first(3) == first(3)
  assert first(3) != first(4)


@pytest.mark.real
def test_real_model(real_lm):
  task = ioi(real_lm, n=8)
  assert task.n == 8
  assert task.solved > 0.8
  differs = task.clean.ids != task.corrupt.ids
  assert (differs.sum(axis=1) == 1).all()
  assert (task.corrupt_value < 0).mean() > 0.8
