"""Baselines know the tokens and their order, and nothing else."""

import numpy as np

from gemma_scope.evals import score_baselines


def test_random_depends_on_prompt_and_seed_alone(groups):
  group = groups[0]
  first = score_baselines.random_scores(group, 1)
  np.testing.assert_array_equal(
    score_baselines.random_scores(group.take([0]), 1)[0], first[0]
  )
  assert not np.allclose(first, score_baselines.random_scores(group, 2))


def test_recency(groups):
  scores = score_baselines.recency_scores(groups[0])
  assert (np.diff(scores, axis=1) > 0).all()


def test_length(tiny, groups):
  scores = score_baselines.length_scores(groups[0], tiny.lm.tokenizer)
  pieces = tiny.lm.tokenizer.pieces(groups[0].ids[0])
  place = pieces.index(" capital")
  assert scores[0, place] == len("capital")
