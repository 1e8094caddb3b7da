"""What is said of latents follows from the numbers."""

import dataclasses

import numpy as np
import pytest

from gemma_scope.viz import features_wording as lib
from tests.viz.made_features import make_info, make_layer


@pytest.fixture
def layer():
  counted = np.arange(30) > 0
  rng = np.random.default_rng(0)
  return make_layer(rng, "starter/resid_post/layer_9", counted, True, 0.312)


def test_quality_stands_beside_that_of_other_text(layer):
  text = lib.quality_sentence(layer)
  assert text == (
    "17.0 latents are active a token. On these 29 tokens they leave 31.2% of "
    "the variance unexplained (27.4% on held-out text)."
  )
  assert lib.quality_summary([layer, layer]).endswith(
    "31.2% at resid_post[9] (27.4%) and 31.2% at resid_post[9] (27.4%)."
  )


def test_poor_and_rough_numbers_are_said_to_be(layer):
  poor = dataclasses.replace(layer, fvu=1.31)
  assert "leave 131% of" in lib.quality_sentence(poor)
  assert lib.quality_sentence(poor).endswith(
    "do not describe this prompt well."
  )
  assert lib.is_poor(poor)
  assert not lib.is_poor(layer)
  few = dataclasses.replace(layer, counted=np.arange(30) > 20)
  assert lib.quality_sentence(few).endswith("that is a rough number.")
  none = dataclasses.replace(layer, fvu=float("nan"))
  assert "one token has no variance" in lib.quality_sentence(none)
  assert lib.is_poor(none)


def test_relevance_adds_up(layer):
  whole, latents = (
    float(x[layer.counted].sum()) for x in (layer.totals, layer.explained)
  )
  text = lib.relevance_sentence(layer, "AttnLRP").replace("−", "-")
  numbers = [float(w) for w in text.split() if w[0] in "+-"]
  assert numbers == pytest.approx([whole, latents, whole - latents], abs=0.006)
  bare = dataclasses.replace(layer, totals=None)
  assert lib.relevance_sentence(bare, "AttnLRP") is None
  assert lib.relevance_sentence(layer, None) is None


def test_small_phrases():
  rng = np.random.default_rng(0)
  info = make_info(rng, "d", 5, [" a", "b", "\n", " c"])
  assert lib.favours_phrase(info) == "“a”, “b”, “↵”"
  assert lib.favours_phrase(None) == ""
  phrases = {0: "never", 0.25: "25% of tokens", 0.004: "1 token in 250"}
  assert {k: lib.frequency_phrase(k) for k in phrases} == phrases
  amounts = {1197.3: "1,197", 35.21: "35.2", 0.07312: "0.0731"}
  assert {k: lib.amount(k) for k in amounts} == amounts
  assert lib.share(float("nan")) == "not a number"
  assert lib.address("resid_post[9]", 5) == "resid_post[9].latents[5]"
