"""Groups: like lengths together, nothing lost, BOS never a candidate."""

import numpy as np
import pytest

from gemma_scope.attribution.attribute import attribute
from gemma_scope.attribution.objectives import logit
from gemma_scope.errors import TextError
from gemma_scope.evals.groups import STEP, merge, to_groups
from tests.evals.conftest import PROMPTS


def test_every_prompt_is_in_one_group(tiny, groups):
  assert len(groups) > 1
  index = np.concatenate([g.index for g in groups])
  assert sorted(index.tolist()) == list(range(len(PROMPTS)))
  for group in groups:
    assert group.width % STEP == 0
    for row, i in zip(group.ids, group.index):
      ids = tiny.lm.tokenizer.encode(PROMPTS[i])
      assert row[: len(ids)].tolist() == ids
      assert group.width - len(ids) < STEP


def test_candidates(tiny, groups):
  for group in groups:
    assert not group.candidates[group.ids == tiny.lm.tokenizer.bos_id].any()
    assert not group.candidates[group.segment_ids == 0].any()
    assert (group.candidates.sum(axis=1) == group.columns).all()


def test_nothing_after_the_target_is_a_candidate(tiny):
  _, (group,) = to_groups(tiny.lm, PROMPTS[0], logit(" Paris", position=3))
  assert np.flatnonzero(group.candidates[0]).tolist() == [1, 2, 3]


def test_each_prompt_keeps_its_own_target(tiny):
  tokens = (" Paris", " Rome", " Mary", " John")
  texts = list(PROMPTS)
  whole = attribute(tiny.lm, texts, logit(tokens), method="input_x_gradient")
  _, groups = to_groups(tiny.lm, texts, logit(tokens))
  for group in groups:
    batch, target = group.asked()
    part = attribute(tiny.lm, batch, target, method="input_x_gradient")
    np.testing.assert_allclose(
      part.target, whole.target[group.index], rtol=1e-4
    )


def test_merge_restores_the_order(groups):
  merged = merge(groups, lambda i: groups[i].ids, 20)
  for group in groups:
    kept = merged[group.index][:, : group.width]
    np.testing.assert_array_equal(kept, group.ids[:, :20])


def test_too_short(tiny):
  with pytest.raises(TextError, match="too short to rank"):
    to_groups(tiny.lm, [[2, 300]], logit(" Paris"))
