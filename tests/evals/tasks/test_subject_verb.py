"""Agreement: the noun in between always misleads."""

import itertools

import pytest

from gemma_scope.evals.tasks import subject_verb
from gemma_scope.evals.tasks.subject_verb import _pairs

PLURAL = (" are", " were", " have")


def test_the_noun_in_between_is_of_the_other_number():
  seen = set()
  for pair in itertools.islice(_pairs(0), 60):
    plural = pair.right[0] in PLURAL
    seen.add(plural)
    assert (pair.wrong[0] in PLURAL) is not plural
    assert pair.clean.split()[1].endswith("s") is plural
    assert pair.clean.split()[-1].endswith("s") is not plural
    assert pair.clean.split()[2:] == pair.corrupt.split()[2:]
  assert seen == {True, False}


@pytest.mark.real
def test_real_model(real_lm):
  task = subject_verb(real_lm, n=8)
  assert task.n == 8
  assert (task.first_difference == 2).all()
  assert (task.corrupt_value < 0).mean() > 0.8
