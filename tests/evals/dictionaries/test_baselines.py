"""Untrained dictionaries against NumPy, and what must hold of them."""

import numpy as np
import pytest

from gemma_scope.dictionaries import quality
from gemma_scope.errors import ConfigError
from gemma_scope.evals.dictionaries import baselines
from gemma_scope.sites import Site

SITE = Site("resid_post", 2)
RNG = np.random.default_rng(0)
MIX = RNG.normal(size=(12, 12)) * np.geomspace(4, 0.1, 12)
ROWS = RNG.normal(size=(400, 12)) @ MIX.T + 5 * RNG.normal(size=12)


@pytest.fixture(scope="module")
def found():
  return baselines.principal(SITE, ROWS)


def test_components_are_those_of_the_svd(found):
  centred = ROWS - ROWS.mean(axis=0)
  _, sizes, vectors = np.linalg.svd(centred, full_matrices=False)
  np.testing.assert_allclose(found.variances, sizes**2 / len(ROWS), rtol=1e-6)
  same = np.abs((found.components * vectors).sum(axis=1))
  np.testing.assert_allclose(same, 1, atol=1e-6)


@pytest.mark.parametrize("k", [1, 5, 12])
def test_pca_leaves_the_other_variances(found, k):
  measured = quality(baselines.pca(found, k), ROWS, ROWS)
  left = found.variances[k:].sum() / found.variances.sum()
  assert measured.fvu == pytest.approx(left, abs=1e-5)
  assert measured.l0 == pytest.approx(k, abs=0.01)


def test_pca_top_k_takes_the_largest_of_each_token(found):
  sae = baselines.pca_top_k(found, 3)
  along = (ROWS - found.mean) @ found.components.T
  expected = np.zeros_like(ROWS) + found.mean
  for i, row in enumerate(along):
    for j in np.argsort(-np.abs(row))[:3]:
      expected[i] += row[j] * found.components[j]
  np.testing.assert_allclose(sae(ROWS), expected, atol=1e-3)
  assert (
    quality(sae, ROWS, ROWS).fvu
    < quality(baselines.pca(found, 3), ROWS, ROWS).fvu
  )


def test_random_has_the_best_gain(found):
  sae = baselines.random_top_k(found, 4, width=40, rows=ROWS, seed=3)
  best = quality(sae, ROWS, ROWS).fvu
  assert quality(sae, ROWS, ROWS).l0 == 4
  for factor in (0.9, 1.1):
    other = baselines._sae(
      found,
      np.asarray(sae.w_enc.unwrap("latents", "input")),
      factor * np.asarray(sae.w_dec.unwrap("latents", "output")),
      sae.activation,
      "",
    )
    assert quality(other, ROWS, ROWS).fvu > best
  again = baselines.random_top_k(found, 4, width=40, rows=ROWS, seed=4)
  assert not np.allclose(again(ROWS), sae(ROWS))


def test_what_cannot_be(found):
  with pytest.raises(ConfigError, match="more rows than dimensions"):
    baselines.principal(SITE, ROWS[:8])
  for make in (baselines.pca, baselines.pca_top_k):
    with pytest.raises(ConfigError, match="cannot be active"):
      make(found, 13)
  with pytest.raises(ConfigError, match="cannot be active"):
    baselines.random_top_k(found, 41, width=40, rows=ROWS)
