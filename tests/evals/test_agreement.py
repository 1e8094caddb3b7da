"""Agreement leaves out what is no candidate, and says so when it is unknown."""

import json

import numpy as np

from gemma_scope.evals.agreement import agreement
from gemma_scope.evals.ranks import spearman

HERE = np.asarray([[False, True, True, True, False], [False] + [True] * 4])
SCORES = {
  "a": np.asarray([[9, 1, 2, 3, 9.0], [0, 1, 2, 3, 4.0]]),
  "b": np.asarray([[-9, 3, 2, 1, 9.0], [5, 2, 1, 3, 4.0]]),
  "flat": np.zeros((2, 5)),
}


def test_candidates_alone_count():
  found = agreement(SCORES, HERE, k=1)
  np.testing.assert_allclose(
    found.values["spearman"][0, 1],
    [-1, spearman(np.arange(4), np.asarray([2, 1, 3, 4]))],
  )
  assert found.values["top_k"][0, 1].tolist() == [0, 1]


def test_symmetric_and_one_with_itself():
  found = agreement(SCORES, HERE)
  for statistic in ("spearman", "kendall"):
    matrix = found.matrix(statistic)
    np.testing.assert_array_equal(matrix, matrix.T)
    np.testing.assert_allclose(np.diag(matrix)[:2], 1)


def test_constant_scores_agree_with_nothing():
  found = agreement(SCORES, HERE)
  assert np.isnan(found.matrix()[0, 2])
  json.dumps(found.to_dict(), allow_nan=False)


def test_interval_and_display():
  found = agreement(SCORES, HERE)
  assert found.between("a", "b").n == 2
  assert "Spearman" in found._repr_html_()
