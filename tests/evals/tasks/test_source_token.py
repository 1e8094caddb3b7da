"""Questions: the source token is where the twin differs."""

import itertools

import numpy as np
import pytest

from gemma_scope.evals.tasks import source_hits, source_token
from gemma_scope.evals.tasks.source_token import _pairs


def test_pairs():
  for pair in itertools.islice(_pairs(0), 50):
    words = (pair.clean.split(), pair.corrupt.split())
    (differ,) = [(a, b) for a, b in zip(*words) if a != b]
    assert differ == tuple(f"{x[0].strip()}." for x in (pair.right, pair.wrong))
    question = pair.clean.split(". ")[-1]
    assert pair.clean.count(question) == 2
    assert pair.clean.endswith(question)


def test_hits():
  here = np.asarray([[False, True, True, True]] * 3)
  scores = np.asarray([[9, 1, 3, -2], [9, 1, 1, 0.5], [9, 0, 0, 0]])
  found = source_hits(scores, here, np.asarray([2, 2, 3]))
  assert found.hit.tolist() == [1, 0.5, 1 / 3]
  assert found.rank.tolist() == [1, 1.5, 2]
  np.testing.assert_allclose(found.share, [0.5, 0.4, 0])


@pytest.mark.real
def test_real_model(real_lm):
  task = source_token(real_lm, n=12)
  assert task.n >= 8
  pieces = task.tokens.pieces(real_lm.tokenizer)
  for row, column, answer in zip(pieces, task.sources, task.answers):
    assert row[column] == real_lm.tokenizer.token_text(int(answer))
    assert column < len(row) - 3
