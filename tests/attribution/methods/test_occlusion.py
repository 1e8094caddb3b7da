import numpy as np
import pytest

from gemma_scope import axes, errors
from gemma_scope.attribution import gradients
from gemma_scope.attribution.attribute import attribute
from gemma_scope.attribution.baselines import OtherPrompt
from gemma_scope.attribution.methods.occlusion import (
  OcclusionOptions,
  target_hidden,
  windows,
)
from gemma_scope.attribution.objectives import logit
from gemma_scope.sites import Site


def run(lm, given, target, at="embed", **options):
  return attribute(
    lm,
    given,
    target,
    method="occlusion",
    at=at,
    options=OcclusionOptions(**options),
  )


@pytest.mark.parametrize(("window", "stride"), [(1, 1), (2, 1), (4, 3), (9, 2)])
def test_windows_by_hand(window, stride):
  segments = np.asarray([[1] * 6 + [0] * 2, [1] * 3 + [0] * 5])
  found = windows(segments, window, stride)
  for row, length in enumerate((6, 3)):
    expected, start = [], 0
    while True:
      expected.append(
        [start <= i < min(start + window, length) for i in range(8)]
      )
      if start + window >= length:
        break
      start += stride
    kept = found[:, row][found[:, row].any(axis=1)]
    np.testing.assert_array_equal(kept, expected)


@pytest.mark.parametrize(
  ("at", "window", "stride"),
  [("embed", 1, 1), ("embed", 3, 2), ("z[1]", 2, 1), ("pattern[0]", 1, 1)],
)
def test_scores_are_a_loop_over_windows(
  double, at, window, stride, monkeypatch
):
  monkeypatch.setattr(gradients, "STEP_TOKENS", 2 * len(double.ids))
  token, level = double.lm.tokenizer.token_id(" Paris"), 0.1
  result = run(
    double.lm,
    double.ids,
    logit(token),
    at,
    window=window,
    stride=stride,
    baseline=np.float32(level),
  )
  (site,) = result
  axis, n = site.info.axes[1:].index(axes.SEQ), len(double.ids)
  top, falls = double.value({token: 1.0}), [[] for _ in range(n)]
  for start in range(0, max(n - window, 0) + stride, stride):

    def edit(x, start=start):
      x = np.moveaxis(x.copy(), axis, 0)
      x[start : start + window] = level
      return np.moveaxis(x, 0, axis)

    fall = top - double.value({token: 1.0}, {site: edit})
    for column in range(start, min(start + window, n)):
      falls[column].append(fall)
  expected = [np.mean(f) for f in falls]
  found = np.asarray(result.per_token(site).data_array)[0]
  np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-5)
  assert np.abs(expected).max() > 1e-2
  assert np.isnan(result.expected[site]).all()


def test_tokens_of_the_baseline_itself_score_nothing(double):
  other = double.ids.copy()
  other[3] = 120
  result = run(
    double.lm, double.ids, logit(" Paris"), baseline=OtherPrompt(other)
  )
  scores = np.asarray(result.per_token().data_array)[0]
  assert abs(scores[3]) > 1e-3
  assert np.abs(np.delete(scores, 3)).max() < 1e-5


def test_another_target_does_not_compile_again(double):
  run(double.lm, double.ids, logit(" Paris"))
  before = target_hidden._cache_size()
  run(double.lm, double.ids, logit(" Rome"), window=3, stride=1)
  assert target_hidden._cache_size() - before <= 1
  before = target_hidden._cache_size()
  run(double.lm, double.ids, logit(" Mary"), window=3, stride=1)
  assert target_hidden._cache_size() == before
  assert Site("embed") in run(double.lm, double.ids, logit(" Paris"))


@pytest.mark.parametrize(
  "bad", [{"window": 0}, {"window": 2, "stride": 3}, {"stride": 0}]
)
def test_gaps_between_windows_are_refused(double, bad):
  with pytest.raises(errors.ConfigError, match="must cover every token"):
    run(double.lm, double.ids, logit(" Paris"), **bad)
