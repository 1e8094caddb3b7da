"""Scores of chunks are those of each prompt alone; costs are counted."""

import numpy as np
import pytest

from gemma_scope.attribution.attribute import attribute
from gemma_scope.evals import scores
from tests.evals.conftest import PROMPTS


@pytest.fixture
def small_chunks(monkeypatch):
  monkeypatch.setattr(scores, "CHUNK_TOKENS", 16)


@pytest.mark.usefixtures("small_chunks")
def test_equal_to_each_prompt_alone(tiny, target, groups):
  found = scores.method_scores(tiny.lm, groups, "input_x_gradient")
  for group, rows in zip(groups, found.rows):
    assert rows.shape == group.ids.shape
    untimed = scores.token_scores(tiny.lm, group, "input_x_gradient")
    np.testing.assert_array_equal(untimed, rows)
    for row, i in zip(rows, group.index):
      alone = attribute(tiny.lm, PROMPTS[i], target, method="input_x_gradient")
      expected = np.asarray(alone.per_token().data_array)[0]
      np.testing.assert_allclose(
        row[: len(expected)], expected, rtol=1e-3, atol=1e-5
      )


def test_cost_is_in_seconds_and_forwards(tiny, groups):
  unit = tuple(0.5 for _ in groups)
  found = scores.method_scores(
    tiny.lm, groups, "attn_lrp", forward_seconds=unit
  )
  assert found.cost.seconds > 0
  np.testing.assert_allclose(found.cost.forwards, 2 * found.cost.seconds)


def test_forward_times(tiny, groups):
  times = scores.forward_times(tiny.lm, groups)
  assert len(times) == len(groups)
  assert min(times) > 0
