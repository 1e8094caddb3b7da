"""The starter suite on one prompt of a tiny model."""

import numpy as np
import pytest

from gemma_scope import testing
from gemma_scope.activations.run import capture
from gemma_scope.analysis.prompt_latents import NOTHING
from gemma_scope.dictionaries import open_suite
from gemma_scope.sites import Site
from gemma_scope.testing.latents import random_suite
from gemma_scope.testing.tiny import tiny_config
from gemma_scope.viz import features as lib

PROMPT = " the capital of France is"


@pytest.fixture(scope="module")
def lm():
  return testing.tiny_lm(tiny_config(num_layers=3))


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
  return open_suite(random_suite(tmp_path_factory.mktemp("s") / "suite.zip"))


@pytest.fixture(scope="module")
def acts(lm):
  return capture(lm, PROMPT, lib.SITES)


@pytest.fixture(scope="module")
def question(acts):
  rng = np.random.default_rng(0)
  n = acts.tokens.width
  relevance = {
    Site("resid_post", i): rng.normal(size=(n, 32)).astype(np.float32)
    for i in (1, 2)
  }
  return lib.Question(np.arange(n) > 0, 9, 4, relevance, "AttnLRP")


@pytest.fixture(scope="module")
def found(lm, suite, acts, question):
  return lib.prompt_features(lm, suite, acts, question)


def test_every_dictionary_is_asked(found):
  assert [x.site for x in found.layers] == ["resid_post[1]", "resid_post[2]"]
  labels = [x.label for x in found.mlps]
  assert labels == [f"mlp_write[{i}]" for i in range(3)]
  assert found.title == "AttnLRP"
  assert found.layers[0].held_out == {"l0": 6.5, "fvu": 0.25}
  assert found.layers[1].held_out == {}


def test_relevance_is_the_question_s(found, question):
  for layer in found.layers:
    given = question.relevance[Site("resid_post", int(layer.site[-2]))]
    np.testing.assert_allclose(layer.totals, given.sum(1), rtol=1e-4, atol=1e-5)


def test_all_that_is_shown_is_known(found, suite):
  shown = {
    (x.dictionary, int(j))
    for x in found.layers
    for j in np.unique(x.indices[x.indices != NOTHING])
  }
  shown |= {(x.dictionary, j) for x in found.mlps for j, *_ in x.strongest}
  known = {(i.dictionary, i.index) for i in found.infos}
  assert shown == known
  name, index = sorted(shown)[0]
  info = found.info(name, index)
  table = suite.table(name)
  assert info.frequency == pytest.approx(float(table.frequencies[index]))
  assert found.info(name, 10_000) is None


def test_long_prompts_show_their_end(lm, suite, acts, question, monkeypatch):
  monkeypatch.setattr(lib, "TOKENS", 3)
  found = lib.prompt_features(lm, suite, acts, question)
  n = acts.tokens.width
  assert found.first == n - 3
  whole = question.relevance[Site("resid_post", 1)][-3:].sum(1)
  np.testing.assert_allclose(found.layers[0].totals, whole, rtol=1e-4)
  assert all(len(x.counts) == 3 for x in found.layers)


def test_without_relevance_there_is_no_title(lm, suite, acts, question):
  plain = lib.Question(question.counted, 9, None, {}, "AttnLRP")
  found = lib.prompt_features(lm, suite, acts, plain)
  assert found.title is None
  assert all(x.relevance is None for x in found.layers)


def test_where_relevance_is_split(suite):
  sites = lib.suite_sites(suite, 3)
  assert list(map(str, sites)) == ["resid_post[1]", "resid_post[2]"]
