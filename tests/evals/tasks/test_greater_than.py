"""Greater-than: digits on both sides of the decade, on the tiny model too."""

import pytest

from gemma_scope.evals.tasks import greater_than
from gemma_scope.evals.tasks.greater_than import _pairs


def test_digits(tiny):
  task = greater_than(tiny.lm, n=5)
  assert task.n == 5
  for pair in task.pairs:
    year = pair.clean.split("year ")[1][:4]
    assert pair.corrupt.split("year ")[1][:4] == year[:2] + "0" + year[3]
    assert pair.clean.endswith(year[:2])
    assert min(map(int, pair.right)) == int(year[2]) + 1
    assert max(map(int, pair.wrong)) == int(year[2]) - 1
    assert len(set(pair.right + pair.wrong)) == 6


def test_seed():
  def first(seed):
    return [pair for _, pair in zip(range(5), _pairs(seed))]

  assert first(0) == first(0)
  assert first(0) != first(1)


@pytest.mark.real
def test_real_model(real_lm):
  task = greater_than(real_lm, n=8)
  assert task.n == 8
  assert task.solved > 0.7
  assert (task.corrupt_value < task.clean_value).mean() > 0.8
