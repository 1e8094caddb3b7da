"""What every metric promises, and what a linear model asks of it.

The model here is y = sum of the weights of the tokens that are kept, whose
true attribution is known: the weights.
"""

import numpy as np
import pytest

from gemma_scope.evals.curves import Curves
from gemma_scope.evals.rationale import Rationale
from gemma_scope.evals.retention import Soft

METRICS = [
  Curves(steps=5),
  Curves(steps=40),
  Rationale(),
  Rationale((0.3,)),
  Soft(draws=3),
]
metrics = pytest.mark.parametrize("metric", METRICS, ids=repr)

rng = np.random.default_rng(0)
WIDTH = 12
HERE = np.arange(WIDTH)[None, :] < np.asarray([WIDTH, 7, 9])[:, None]
HERE[:, 0] = False
WEIGHTS = rng.normal(size=HERE.shape)


def linear(runs):
  """[prompts, runs] the linear model; soft shares count by expectation."""
  return (runs.keep * (WEIGHTS * HERE)[:, None, :]).sum(axis=2)


def numbers(metric, scores):
  return metric.measure(linear(metric.runs(scores, HERE)), HERE)


@metrics
def test_names_and_shapes(metric):
  runs = metric.runs(WEIGHTS, HERE)
  assert runs.keep.shape[:2] == runs.draws.shape
  assert runs.keep.shape[2] == WIDTH
  found = numbers(metric, WEIGHTS)
  assert set(found) == set(metric.better)
  assert set(metric.better.values()) <= {"high", "low"}
  assert all(value.shape == (len(HERE),) for value in found.values())


@metrics
def test_the_truth_scores_best(metric):
  best = numbers(metric, WEIGHTS)
  for seed in range(1, 21):  # seed 0 made the weights
    other = np.random.default_rng(seed).normal(size=HERE.shape)
    found = numbers(metric, other)
    for name, direction in metric.better.items():
      sign = 1 if direction == "high" else -1
      gain = sign * (best[name] - found[name])
      # On one prompt soft shares may favour another spread of equal order.
      assert gain.mean() > 0
      if not name.startswith("soft"):
        assert (gain > -1e-9).all()


@metrics
def test_turned_round_is_worst(metric):
  best, worst = numbers(metric, WEIGHTS), numbers(metric, -WEIGHTS)
  for name, direction in metric.better.items():
    sign = 1 if direction == "high" else -1
    assert (sign * (best[name] - worst[name]) > 0).all()


@metrics
def test_scale_and_shift_of_scores_do_not_matter(metric):
  first = numbers(metric, WEIGHTS)
  second = numbers(metric, 7.0 * WEIGHTS + 3.0)
  for name in metric.better:
    np.testing.assert_allclose(second[name], first[name], rtol=1e-5)


@metrics
def test_what_is_no_candidate_does_not_matter(metric):
  runs = metric.runs(WEIGHTS, HERE)
  other = metric.runs(np.where(HERE, WEIGHTS, 1e3), HERE)
  kept = HERE[:, None, :]
  np.testing.assert_array_equal(runs.keep * kept, other.keep * kept)
