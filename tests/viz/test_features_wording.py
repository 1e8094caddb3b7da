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
  assert lib.quality_summary([layer, layer]) == (
    "Left unexplained of the variance of these tokens (of held-out text): "
    "31.2% at resid_post[9] (27.4%) and 31.2% at resid_post[9] (27.4%)."
  )
  unknown = dataclasses.replace(layer, held_out={})
  assert lib.held_out_share(unknown) == ""
  assert lib.quality_summary([unknown]).endswith("31.2% at resid_post[9].")


def test_poor_and_rough_numbers_are_said_to_be(layer):
  plain = (
    "Latents active a token; variance of these 29 tokens left unexplained, "
    "beside that of held-out text."
  )
  assert lib.quality_sentence([layer]) == plain
  poor = dataclasses.replace(layer, fvu=1.31)
  said = lib.quality_sentence([layer, poor])
  assert said.endswith("At resid_post[9] latents describe it badly.")
  assert lib.is_poor(poor)
  assert not lib.is_poor(layer)
  few = dataclasses.replace(layer, counted=np.arange(30) > 20)
  assert lib.quality_sentence([few]).endswith("it is a rough number.")
  one = dataclasses.replace(layer, fvu=float("nan"), counted=np.arange(30) == 5)
  assert "One token has no variance" in lib.quality_sentence([one])
  assert lib.is_poor(one)


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
