"""Scale and centre of the first rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gemma_scope.training.scaling import geometric_median, measure
from tests.training import runs


def first_rows(config):
  source = runs.rows()
  batches = [next(source) for _ in range(config.first_batches)]
  site = config.sites[0]
  return np.concatenate([b[site] for b in batches]).astype(np.float64)


def test_unit_mean_squared_norm():
  config = runs.run()
  found = measure(runs.rows(), config)[config.sites[0]]
  x = first_rows(config) * float(found.scale)
  assert np.square(x).sum(1).mean() == pytest.approx(1, rel=1e-5)
  np.testing.assert_allclose(found.centre, x.mean(0), atol=1e-6)


def test_unit_variance():
  config = runs.run(scale="deviation")
  found = measure(runs.rows(), config)[config.sites[0]]
  x = first_rows(config) * float(found.scale)
  variance = np.square(x - x.mean(0)).sum(1).mean()
  assert variance == pytest.approx(1, rel=1e-5)
  np.testing.assert_allclose(found.centre, x.mean(0), atol=1e-6)


def test_unit_median_distance():
  config = runs.run(scale="median", first_batches=1)
  source = runs.rows()
  found = measure(source, config)[config.sites[0]]
  x = first_rows(config) * float(found.scale)
  distance = np.linalg.norm(x - x.mean(0), axis=1)
  assert np.median(distance) == pytest.approx(1, rel=1e-5)


def test_without_scale_or_centre():
  config = runs.run(scale="none", centre="zero")
  found = measure(runs.rows(), config)[config.sites[0]]
  assert found.scale == 1
  np.testing.assert_array_equal(found.centre, 0)


def test_the_geometric_median_minimises_the_mean_distance():
  x = jax.random.normal(jax.random.key(0), (200, 3)) ** 3
  point = geometric_median(x)

  def distance(p):
    return jnp.linalg.norm(x - p[None], axis=1).mean()

  np.testing.assert_allclose(jax.grad(distance)(point), 0, atol=1e-3)
  assert distance(point) < distance(x.mean(0))
