"""Features of labelled texts against captures, text by text."""

import numpy as np
import pytest

import gemma_scope as gs
from gemma_scope.analysis import probe_fits
from gemma_scope.errors import ConfigError
from gemma_scope.evals.dictionaries.concepts import Labelled
from gemma_scope.evals.dictionaries.representations import (
  L2,
  Features,
  Represented,
  represent,
  saes_by_site,
)
from gemma_scope.sites import Site
from gemma_scope.testing import dictionaries as make
from tests.dictionaries import oracle as family

ROWS = tuple(
  (2, *np.random.default_rng(n).integers(110, 512, n).tolist())
  for n in range(2, 75)
)


def texts(pooled):
  labels = np.arange(len(ROWS)) % 2
  return Labelled("it", ROWS, labels, ("a", "b"), np.arange(len(ROWS)), pooled)


@pytest.fixture(scope="module")
def sae():
  return make.random_sae(layer=2)


@pytest.mark.parametrize("pooled", [True, False])
def test_every_representation_is_of_the_right_tokens(case, sae, pooled):
  found = {
    one.name: one
    for one in represent(case.lm, {"s": sae}, texts(pooled)).features
  }
  assert list(found) == ["s", "residual", "PCA", "neurons"]
  site, neurons = Site("resid_post", 2), Site("mlp_act", 2)
  for i in (0, 40, 70):
    acts = gs.capture(case.lm, np.asarray(ROWS[i]), [site, neurons])
    x, n = (
      np.asarray(acts[s].unwrap(*s.info.axes), np.float64)[0]
      for s in (site, neurons)
    )
    kept = slice(1, None) if pooled else slice(-1, None)
    f = family.encode(sae, x[kept]).mean(axis=0)
    close = {"rtol": 1e-3, "atol": 2e-4}
    np.testing.assert_allclose(found["s"].values[i], f, **close)
    np.testing.assert_allclose(found["s"].vectors[i], x[kept].mean(0), **close)
    own = found["neurons"]
    np.testing.assert_allclose(own.vectors[i], n[kept].mean(0), **close)


def test_baselines_are_about_the_mean_of_what_is_fitted(case, sae):
  seen = represent(case.lm, {"s": sae}, texts(True), seed=1)
  fit, _ = seen.split
  assert set(fit) != set(texts(True).split()[0])
  found = {one.name: one for one in seen.features}
  for name in ("residual", "PCA", "neurons"):
    one = found[name]
    np.testing.assert_allclose(one.values[fit].mean(axis=0), 0, atol=1e-9)
    whole = one.values @ one.writes
    centred = one.vectors - one.vectors[fit].mean(axis=0)
    np.testing.assert_allclose(whole[fit], centred[fit], atol=1e-6)
  spread = found["PCA"].values[fit].std(axis=0)
  assert (np.diff(spread) <= 1e-9).all()


def test_a_feature_is_taken_out(case, sae):
  one = represent(case.lm, {"s": sae}, texts(True)).features[0]
  rows = family.plain(sae.w_dec, "latents", "output")
  np.testing.assert_allclose(one.writes, rows, atol=1e-6)
  chosen = np.array([3, 7])
  expected = one.vectors.copy()
  for i in range(len(ROWS)):
    for j in chosen:
      expected[i] -= one.values[i, j] * rows[j]
  np.testing.assert_allclose(one.without(chosen), expected, atol=1e-9)


@pytest.mark.parametrize(
  "given",
  [
    {"t": make.random_transcoder(layer=2)},
    {"a": make.random_sae(layer=2), "b": make.random_sae(layer=1)},
    {"c": make.random_cross_layer(count=2)},
    {"PCA": make.random_sae(layer=2)},
    {},
  ],
)
def test_other_dictionaries_are_refused(case, given):
  with pytest.raises(ConfigError, match="SAEs of one site"):
    represent(case.lm, given, texts(True))


def test_saes_are_grouped_by_site():
  a, b, c = (make.random_sae(layer=n, seed=n) for n in (2, 1, 2))
  found = saes_by_site({"a": a, "b": b, "c": c})
  first, second = Site("resid_post", 2), Site("resid_post", 1)
  assert found == {first: {"a": a, "c": c}, second: {"b": b}}
  with pytest.raises(ConfigError, match="received: t: transcoder"):
    saes_by_site({"a": a, "t": make.random_transcoder(layer=2)})


def test_probes_are_fitted_once_for_the_same_vectors(monkeypatch):
  rng, fits = np.random.default_rng(0), []
  x, other = (rng.normal(size=(len(ROWS), 4)) for _ in range(2))
  one, two, three = (
    Features(name, vectors, vectors, np.eye(4))
    for name, vectors in (("a", x), ("b", x), ("c", other))
  )
  real = probe_fits.span

  def span(x):
    fits.append(x)
    return real(x)

  monkeypatch.setattr(probe_fits, "span", span)
  seen = Represented(texts(True), (one, two, three))
  assert seen.probes(one) is seen.probes(two)
  seen.probes(three)
  assert len(fits) == 2  # of two kinds of vectors, whatever the classes
  fit, _ = seen.split
  for features in (one, three):
    for c, (direction, _) in enumerate(seen.probes(features)):
      labels = seen.texts.labels[fit] == c
      expected, _ = probe_fits.logistic(features.vectors[fit], labels, L2)
      np.testing.assert_array_equal(direction, expected)
