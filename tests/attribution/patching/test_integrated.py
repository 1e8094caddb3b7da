"""Completeness of both paths, batches of points, errors."""

import jax.numpy as jnp
import numpy as np
from penzai import pz
import pytest

from gemma_scope import axes, errors
from gemma_scope.attribution import gradients, logit_difference
from gemma_scope.attribution.patching.approximate import approximate_patching
from gemma_scope.attribution.patching.integrated import (
  along,
  weighted,
)
from gemma_scope.attribution.patching.question import EstimateOptions
from gemma_scope.attribution.rows import Rows
from tests.attribution.patching.patch_checks import cells_of, other_prompt

AT = ["embed", "mlp_act[0]", "resid_mid[1]"]


def estimates(double, at=tuple(AT), **options):
  return approximate_patching(
    double.lm,
    other_prompt(double.ids),
    double.ids,
    logit_difference(7, 9),
    method="integrated_gradients",
    at=at,
    options=EstimateOptions(**options),
  )


def test_inputs_are_complete_at_the_embeddings(double):
  found = estimates(double, steps=24)
  change = (found.source - found.base)[0]
  np.testing.assert_allclose(cells_of(found, "embed").sum(), change, rtol=1e-3)
  # What follows the embeddings is averaged along the same path, no more.
  rough = estimates(double, steps=1)
  assert abs(cells_of(rough, "embed").sum() - change) > 0.01 * abs(change)


def test_batches_of_points_change_nothing(double, monkeypatch):
  whole = estimates(double, steps=5)
  monkeypatch.setattr(gradients, "STEP_TOKENS", 2 * len(double.ids))
  parts = estimates(double, steps=5)
  for site in whole:
    np.testing.assert_allclose(
      cells_of(parts, site), cells_of(whole, site), rtol=1e-4, atol=1e-6
    )


def test_points_come_in_batches_of_one_size(monkeypatch):
  monkeypatch.setattr(gradients, "STEP_TOKENS", 6)
  rows = Rows(np.ones((1, 3), int), np.ones((1, 3), int), np.zeros(1, int))
  nodes = gradients.quadrature("midpoint", 5)
  found = gradients.in_batches(rows, nodes)
  assert [len(points) for points, _ in found] == [2, 2, 2]
  np.testing.assert_allclose(sum(w.sum() for _, w in found), 1, rtol=1e-6)
  assert found[-1][1][-1] == 0


def test_points_and_pairs_keep_their_places():
  names = (axes.BATCH, axes.SEQ)
  way = np.asarray([[1.0, 2.0], [10.0, 20.0], [100.0, 200.0]], np.float32)
  points = np.asarray([0.5, 2.0], np.float32)
  rows = along(pz.nx.wrap(jnp.asarray(way), *names), jnp.asarray(points))
  np.testing.assert_allclose(
    rows.data_array, np.concatenate([0.5 * way, 2 * way])
  )
  found = weighted(rows, jnp.asarray([0.2, 0.3]))
  np.testing.assert_allclose(found.data_array, 0.7 * way, rtol=1e-6)


def test_an_unknown_path_is_refused(double):
  with pytest.raises(errors.ConfigError, match="path='inputs' or path"):
    estimates(double, path="straight")
  with pytest.raises(errors.ConfigError, match="enough steps"):
    estimates(double, steps=0)
