"""The entrance against a slow loop, and against what must come out."""

import numpy as np
import pytest

from gemma_scope.errors import ConfigError
from gemma_scope.evals import (
  Curves,
  FaithfulnessOptions,
  Perturbation,
  faithfulness,
)
from gemma_scope.evals.perturbation import Runs, run_values
from tests.evals.conftest import PROMPTS
from tests.evals.test_perturbation import slow_value

TEXTS = list(PROMPTS)
AREAS = FaithfulnessOptions(metrics=(Curves(steps=50),))


@pytest.fixture(scope="module")
def left_out(tiny, groups):
  """[prompts, seq] what each token's removal really does."""
  width = max(g.width for g in groups)
  scores = np.zeros((len(TEXTS), width))
  for group in groups:
    keep = np.ones((group.size, group.width + 1, group.width), bool)
    for i in range(group.width):
      keep[:, i, i] = False
    runs = run_values(tiny.lm.model, group, Runs.hard(keep), Perturbation())
    scores[group.index, : group.width] = runs[:, -1:] - runs[:, :-1]
  return scores


def slow_area(tiny, group, p, order, how):
  keep = np.ones(group.width, bool)
  values = [slow_value(tiny, group, p, keep, how)]
  for token in order:
    keep[token] = False
    values.append(slow_value(tiny, group, p, keep, how))
  return np.trapezoid(values, dx=1 / len(order))


def test_equal_to_a_loop(tiny, target, groups):
  # No two alike: how ties are broken is another test's.
  shape = (len(TEXTS), max(g.width for g in groups))
  scores = np.random.default_rng(0).normal(size=shape)
  report = faithfulness(
    tiny.lm, TEXTS, target, methods=(), scores={"mine": scores}, options=AREAS
  )
  for group in groups:
    for p, i in enumerate(group.index):
      here = np.flatnonzero(group.candidates[p])
      order = sorted(here, key=lambda t, i=i: -scores[i, t])
      for name, tokens in (("morf", order), ("lerf", order[::-1])):
        np.testing.assert_allclose(
          report.values["mine"][name][i],
          slow_area(tiny, group, p, tokens, Perturbation()),
          rtol=1e-3,
          atol=1e-4,
        )


def test_true_effects_beat_random_and_their_reverse(tiny, target, left_out):
  report = faithfulness(
    tiny.lm,
    TEXTS,
    target,
    methods=(),
    scores={"true": left_out, "reversed": -left_out},
    options=AREAS,
  )
  area = {m: report.values[m]["abpc"] for m in report.methods}
  assert area["true"].mean() > area["random"].mean() + 0.1
  assert (area["true"] > area["reversed"]).all()
  np.testing.assert_allclose(area["true"], -area["reversed"], rtol=1e-3)


def test_scale_of_scores_does_not_matter(tiny, target, left_out):
  report = faithfulness(
    tiny.lm,
    TEXTS,
    target,
    methods=(),
    scores={"a": left_out, "b": 50 * left_out},
  )
  for name in report.better:
    np.testing.assert_allclose(
      report.values["a"][name], report.values["b"][name], rtol=1e-3, atol=1e-4
    )


def test_baselines_costs_and_progress(tiny, target):
  seen = []
  report = faithfulness(
    tiny.lm,
    TEXTS[:1] * 2,
    target,
    methods=("attn_lrp", "input_x_gradient"),
    options=AREAS,
    progress=lambda label, share: seen.append((label, share)),
  )
  assert report.methods[:2] == ("attn_lrp", "input_x_gradient")
  assert set(report.baselines) <= set(report.methods)
  assert set(report.cost) == {"attn_lrp", "input_x_gradient"}
  assert report.agreement.between("attn_lrp", "attn_lrp").mean == 1
  assert any("attn_lrp" in label for label, _ in seen)
  assert report.n == 2


def test_probabilities(tiny, left_out):
  from gemma_scope.attribution.objectives import log_prob

  report = faithfulness(
    tiny.lm,
    TEXTS,
    log_prob(" Paris"),
    methods=(),
    scores={"true": left_out},
    options=FaithfulnessOptions(metrics=(Curves(),), value=np.exp),
  )
  values = report.values["true"]["morf"]
  assert (values > 0).all()
  assert (values < 1).all()


def test_two_scores_of_one_name(tiny, target, left_out):
  with pytest.raises(ConfigError, match="one name"):
    faithfulness(
      tiny.lm, TEXTS, target, methods=(), scores={"random": left_out}
    )
