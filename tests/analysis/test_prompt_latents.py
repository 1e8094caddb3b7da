"""Latents of one prompt: relevance against a spliced model, shown by loops."""

import numpy as np
import pytest

from gemma_scope import testing
from gemma_scope.activations.run import capture
from gemma_scope.analysis.prompt_latents import NOTHING, active_latents
from gemma_scope.attribution.attribute import attribute
from gemma_scope.attribution.objectives import logit
from gemma_scope.dictionaries import quality
from gemma_scope.errors import ConfigError
from gemma_scope.surgery.splice import splice
from gemma_scope.testing import dictionaries as make
from gemma_scope.testing.tiny import tiny_config

PROMPT = " the capital of France is"


@pytest.fixture(scope="module")
def sae():
  return make.random_sae("relu", layer=1, latents=40)


@pytest.fixture(scope="module")
def lm():
  return testing.tiny_lm(tiny_config(num_layers=3))


def rows(found, site, name="embedding"):
  return np.asarray(found[site].unwrap("batch", "seq", name))[0]


@pytest.fixture(scope="module")
def x(lm, sae):
  return rows(capture(lm, PROMPT, [sae.site]), sae.site)


@pytest.fixture(scope="module", params=["input_x_gradient", "attn_lrp"])
def spliced(request, lm, sae):
  """Relevance of the site, its latents and its error, in the spliced model."""
  site = sae.site
  at = [site, site.latents, site.error]
  model = lm.replace(splice(lm.model, sae))
  return attribute(model, PROMPT, logit(9), method=request.param, at=at)


def test_relevance_is_that_of_the_spliced_model(spliced, sae, x):
  site, counted = sae.site, np.ones(len(x), bool)
  found = active_latents(sae, x, rows(spliced, site), counted, shown=40)
  expected = rows(spliced, site.latents, "latents")
  for t, indices in enumerate(found.indices):
    there = indices[indices != NOTHING]
    np.testing.assert_allclose(
      found.relevance[t, : len(there)],
      expected[t, there],
      atol=2e-5 * np.abs(expected).max(),
    )
    assert (found.activations[t, : len(there)] > 0).all()
  np.testing.assert_allclose(found.explained, expected.sum(1), atol=1e-4)
  bias = np.asarray(sae.b_dec.unwrap("output"))
  slopes = rows(spliced, site) / x
  np.testing.assert_allclose(found.bias, slopes @ bias, atol=1e-4)
  rest = rows(spliced, site.error).sum(1) + found.bias
  np.testing.assert_allclose(found.totals, found.explained + rest, atol=1e-4)


@pytest.fixture(scope="module")
def made(sae):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(9, 32)).astype(np.float32)
  counted = np.arange(9) != 0
  scores = rng.normal(size=(9, 32)).astype(np.float32)
  return x, scores, counted


def test_the_most_active_and_the_most_relevant_are_shown(made, sae):
  x, scores, counted = made
  found = active_latents(sae, x, scores, counted, shown=6)
  whole = active_latents(sae, x, scores, counted, shown=40)
  for t in range(1, 9):
    every = dict(zip(whole.indices[t], whole.relevance[t]))
    every.pop(NOTHING, None)
    by_size = [j for j in whole.indices[t] if j != NOTHING]
    expected = by_size[:3]
    rest = sorted(set(by_size) - set(expected), key=lambda j: -abs(every[j]))
    shown = [j for j in found.indices[t] if j != NOTHING]
    assert set(shown) == {*expected, *rest[:3]}
    assert shown == [j for j in by_size if j in shown]


def test_without_relevance_activations_decide(made, sae):
  x, _, counted = made
  found = active_latents(sae, x, None, counted, shown=5)
  latents = np.asarray(sae.encode(x))
  order = np.argsort(-latents, axis=1)[:, :5]
  np.testing.assert_array_equal(found.indices[1:], order[1:])
  assert found.relevance is None
  assert found.totals is None
  assert found.explained is None
  assert found.bias is None
  best = found.ranked(1)[0]
  t, j = np.unravel_index(latents[1:].argmax(), latents[1:].shape)
  assert best[:2] == (j, t + 1)
  assert np.isnan(best[3])


def test_what_does_not_count_has_no_latents(made, sae):
  x, scores, counted = made
  found = active_latents(sae, x, scores, counted)
  assert (found.indices[0] == NOTHING).all()
  assert found.counts[0] == found.explained[0] == 0
  assert found.totals[0] != 0
  assert found.counts[1:].min() > 0
  assert all(token != 0 for _, token, *_ in found.ranked(99))


def test_ranked(made, sae):
  x, scores, counted = made
  found = active_latents(sae, x, scores, counted, shown=40)
  first = found.ranked(5)
  sizes = [abs(relevance) for *_, relevance in first]
  assert sizes == sorted(sizes, reverse=True)
  assert sizes[0] == np.abs(found.relevance).max()
  for latent, token, activation, relevance in first:
    place = found.indices[token].tolist().index(latent)
    assert activation == found.activations[token, place]
    assert relevance == found.relevance[token, place]


def test_quality_is_that_of_quality(made, sae):
  x, _, counted = made
  found = active_latents(sae, x, None, counted, held_out={"fvu": 0.3})
  expected = quality(sae, x[counted], x[counted])
  assert found.fvu == pytest.approx(expected.fvu, rel=1e-6)
  assert found.l0 == pytest.approx(expected.l0)
  assert found.held_out == {"fvu": 0.3}
  assert np.isnan(active_latents(sae, x[:2], None, counted[:2]).fvu)


def test_zeros_lose_nothing_but_themselves(sae):
  x = np.zeros((2, 32), np.float32)
  found = active_latents(sae, x, np.zeros_like(x), np.ones(2, bool))
  assert np.isfinite(found.relevance).all()


def test_transcoders_are_refused(made):
  x, _, counted = made
  with pytest.raises(ConfigError, match="rebuilt where it is read"):
    active_latents(make.random_transcoder(), x, None, counted)
