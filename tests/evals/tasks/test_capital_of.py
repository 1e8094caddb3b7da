"""Capitals: every pair once, the wrong answer right for the twin."""

import pytest

from gemma_scope.evals.tasks import capital_of
from gemma_scope.evals.tasks.capital_of import CAPITALS, TEMPLATES, _pairs


def test_pairs():
  every = list(_pairs(0))
  count = len(CAPITALS)
  assert len(set(every)) == len(every) == len(TEMPLATES) * count * (count - 1)
  for pair in every[:50]:
    (country,) = [c for c in CAPITALS if c in pair.clean]
    (other,) = [c for c in CAPITALS if c in pair.corrupt]
    assert pair.right == (f" {CAPITALS[country]}",)
    assert pair.wrong == (f" {CAPITALS[other]}",)


@pytest.mark.real
def test_real_model(real_lm):
  task = capital_of(real_lm, n=8)
  assert task.n == 8
  assert task.solved > 0.8
  assert (task.corrupt_value < 0).mean() > 0.8
