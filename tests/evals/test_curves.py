"""Areas equal a loop over steps; a random order has none between."""

import itertools

import numpy as np
import pytest

from gemma_scope.errors import GemmaScopeError
from gemma_scope.evals.curves import Curves, area

N = 8
HERE = np.ones((1, N), bool)
WEIGHTS = np.random.default_rng(0).normal(size=(1, N))


def y(keep):
  """A model that is not linear."""
  return np.tanh((keep * WEIGHTS[0]).sum(axis=-1)) + 0.1 * keep[..., 0]


def areas(scores, steps):
  curves = Curves(steps)
  return curves.measure(y(curves.runs(scores, HERE).keep), HERE)


def slow_area(order):
  """Takes tokens away one by one and adds trapezoids up."""
  keep, values = np.ones(N), [y(np.ones(N))]
  for token in order:
    keep[token] = 0
    values.append(y(keep))
  return sum((a + b) / 2 / N for a, b in itertools.pairwise(values))


def test_equal_to_a_loop():
  order = np.argsort(-WEIGHTS[0])
  found = areas(WEIGHTS, N)
  morf, lerf = slow_area(order), slow_area(order[::-1])
  np.testing.assert_allclose(found["morf"], morf, rtol=1e-6)
  np.testing.assert_allclose(found["lerf"], lerf, rtol=1e-6)
  np.testing.assert_allclose(found["abpc"], lerf - morf, rtol=1e-6)


def test_more_steps_than_tokens_add_nothing():
  for name, value in areas(WEIGHTS, N).items():
    np.testing.assert_allclose(areas(WEIGHTS, 5 * N)[name], value, rtol=1e-6)


def test_random_orders_average_to_zero():
  rng = np.random.default_rng(1)
  found = [areas(rng.normal(size=(1, N)), 4)["abpc"][0] for _ in range(600)]
  error = np.std(found) / np.sqrt(len(found))
  assert abs(np.mean(found)) < 4 * error


def test_area_of_a_straight_line():
  counts = np.asarray([[0, 1, 3, 4]])
  np.testing.assert_allclose(area(1 - counts / 4, counts), 0.5)


def test_no_steps():
  with pytest.raises(GemmaScopeError, match="at least one step"):
    Curves(0).runs(WEIGHTS, HERE)
