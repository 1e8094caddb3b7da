"""Orders of removal: by score, ties by chance, candidates alone."""

import numpy as np
import pytest

from gemma_scope.errors import GemmaScopeError
from gemma_scope.evals import rankings

HERE = np.asarray([[False, True, True, True, True]])
SCORES = np.asarray([[99.0, 0.5, -2.0, 3.0, 1.0]])


def test_highest_first_and_signs_count():
  ranks = rankings.removal_ranks(SCORES, HERE)
  assert ranks[0].tolist() == [4, 2, 3, 0, 1]


def test_masks():
  ranks = rankings.removal_ranks(SCORES, HERE)
  counts = np.asarray([[0, 1, 4]])
  gone = ~rankings.without_top(ranks, counts)[0]
  assert [np.flatnonzero(g).tolist() for g in gone] == [[], [3], [1, 2, 3, 4]]
  gone = ~rankings.without_bottom(ranks, counts, HERE)[0]
  assert [np.flatnonzero(g).tolist() for g in gone] == [[], [2], [1, 2, 3, 4]]
  kept = rankings.only_top(ranks, counts, HERE)[0]
  assert [np.flatnonzero(k).tolist() for k in kept] == [
    [0],
    [0, 3],
    [0, 1, 2, 3, 4],
  ]


def test_ties_do_not_follow_the_position():
  here = np.ones((1, 40), bool)
  ranks = rankings.removal_ranks(np.zeros((1, 40)), here)[0]
  assert sorted(ranks.tolist()) == list(range(40))
  assert abs(np.corrcoef(ranks, np.arange(40))[0, 1]) < 0.5


def test_counts():
  here = np.arange(9)[None, :] < np.asarray([8, 3])[:, None]
  fractions = np.asarray([0.0, 0.5, 1.0])
  assert rankings.counts_at(fractions, here).tolist() == [[0, 4, 8], [0, 2, 3]]
  above = rankings.counts_above((0.01, 0.25, 0.5), here)
  assert above.tolist() == [[1, 2, 4], [1, 1, 2]]


def test_scores_of_another_shape():
  with pytest.raises(GemmaScopeError, match="for each token of each prompt"):
    rankings.removal_ranks(SCORES[:, :3], HERE)


def test_scores_that_are_no_numbers():
  with pytest.raises(GemmaScopeError, match="not a finite number") as error:
    rankings.removal_ranks(np.where(SCORES == 3.0, np.nan, SCORES), HERE)
  assert "token 3" in error.value.received
  rankings.removal_ranks(np.where(SCORES == 99, np.nan, SCORES), HERE)


@pytest.mark.parametrize("steps", [0, 2.5])
def test_no_steps(steps):
  with pytest.raises(GemmaScopeError, match="at least one step"):
    rankings.grid(steps)
