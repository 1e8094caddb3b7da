"""What is stored of a latent, and what is measured, become one value."""

import dataclasses

import numpy as np
import pytest

from gemma_scope import testing
from gemma_scope.activations.corpus.corpus import Corpus
from gemma_scope.activations.corpus.options import PackingOptions
from gemma_scope.activations.corpus.pipeline import TokenPipeline
from gemma_scope.analysis.latent_examples import latent_examples
from gemma_scope.analysis.latent_geometry import latent_geometry
from gemma_scope.analysis.latent_logits import latent_logits
from gemma_scope.dictionaries import open_suite
from gemma_scope.errors import ConfigError
from gemma_scope.testing import dictionaries as make
from gemma_scope.testing.latents import random_suite
from gemma_scope.testing.tiny import tiny_config
from gemma_scope.viz.dashboard import (
  MEASURED,
  measured_dashboard,
  stored_dashboard,
)

TEXTS = [" the capital of France is Paris", " and Mary went to the store"] * 4


@pytest.fixture(scope="module")
def lm():
  return testing.tiny_lm(tiny_config(num_layers=3))


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
  return open_suite(random_suite(tmp_path_factory.mktemp("s") / "suite.zip"))


@pytest.fixture(scope="module")
def stored(lm, suite):
  return stored_dashboard(lm.tokenizer, suite, "resid_post/layer_1", 5)


def batches(lm):
  packing = PackingOptions(seq_len=16, batch_size=2)
  return TokenPipeline(Corpus.of(TEXTS), lm.tokenizer, packing)


@pytest.fixture(scope="module")
def sae():
  return make.random_sae("relu", layer=1)


@pytest.fixture(scope="module")
def measured(lm, sae):
  return measured_dashboard(lm, sae, 9, batches(lm))


def test_what_is_stored(stored, suite):
  table = suite.table("resid_post/layer_1")
  assert stored.info.description == "made-up words"
  assert stored.info.index == 5
  assert len(stored.info.examples) == len(table.top(5))
  assert stored.histogram == tuple(table.histogram(5))
  assert stored.counted == table.counted
  sae = suite["resid_post/layer_1"]
  geometry = latent_geometry(sae, 5)
  assert stored.geometry.cosine == pytest.approx(geometry.cosine, rel=1e-5)
  assert stored.geometry.neighbours == geometry.neighbours
  others = [info.index for info in stored.neighbours]
  assert others == [j for j, _ in stored.geometry.neighbours]
  assert stored.metrics == {"l0": 6.5, "fvu": 0.25}
  assert (stored.site, stored.model) == ("resid_post[1]", "tiny")
  assert stored.manifest["config"]["latent"] == 5


def test_what_is_measured(lm, sae, measured):
  table = latent_examples(lm, {"d": sae}, batches(lm), MEASURED)["d"]
  assert measured.counted == table.counted
  assert measured.info.frequency == pytest.approx(table.frequency(9))
  assert measured.histogram == tuple(table.histogram(9))
  assert len(measured.info.examples) == len(table.top(9, 20))
  tokens, values = latent_logits(lm, sae, count=12, indices=[9])
  texts = [lm.tokenizer.token_text(int(t)) for t in tokens[0, 0]]
  assert [t for t, _ in measured.info.favoured] == texts
  np.testing.assert_allclose(
    [v for _, v in measured.info.disfavoured], values[0, 1], rtol=1e-5
  )
  assert all(info.favoured for info in measured.neighbours)
  assert measured.origin == "measured on the given text"


def test_it_becomes_a_page_and_json(stored):
  assert "</html>" in stored.to_html()
  assert "iframe" in stored._repr_html_()
  data = stored.to_dict()
  assert data["info"]["description"] == "made-up words"
  assert data["histogram"][0] == pytest.approx(list(stored.histogram[0]))
  assert "resid_post[1].latents[5]" in repr(stored)


def test_no_such_latent(lm, suite, sae):
  with pytest.raises(ConfigError, match="latent 64"):
    stored_dashboard(lm.tokenizer, suite, "resid_post/layer_1", 64)
  with pytest.raises(ConfigError, match="latent 64"):
    measured_dashboard(lm, sae, 64, batches(lm))


def test_dictionaries_without_a_name(lm, sae):
  about = dataclasses.replace(sae.about, name="")
  found = measured_dashboard(lm, sae.with_about(about), 3, batches(lm))
  assert found.info.dictionary == "sae of resid_post[1]"
