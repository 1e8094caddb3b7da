"""Other forms of one dictionary give its numbers."""

import dataclasses

import numpy as np
import pytest

from gemma_scope.dictionaries import folding
from gemma_scope.errors import ConfigError
from gemma_scope.testing import dictionaries as make
from gemma_scope.testing.dictionaries import random_vectors


def close(a, b):
  np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("activation", ["relu", "jump_relu", "top_k"])
def test_input_bias(activation):
  sae = make.random_sae(activation)
  folded = folding.fold_input_bias(sae)
  assert folded.b_in is None
  x = random_vectors(sae, 9)
  close(folded.encode(x), sae.encode(x))
  close(folded(x), sae(x))


def test_input_bias_of_a_gated_dictionary():
  with pytest.raises(ConfigError, match="it has two"):
    folding.fold_input_bias(make.random_sae("gated"))


@pytest.mark.parametrize(
  "make_one", [make.random_sae, lambda: make.random_cross_layer(affine=True)]
)
def test_input_scale(make_one):
  dictionary, scale = make_one(), 0.02
  folded = folding.fold_input_scale(dictionary, scale)
  x = 50 * random_vectors(dictionary, 9)
  close(folded.encode(x), dictionary.encode(scale * x))
  np.testing.assert_allclose(
    folded(x) * scale, dictionary(scale * x), atol=1e-5
  )


def test_input_scale_is_positive():
  with pytest.raises(ConfigError, match="positive"):
    folding.fold_input_scale(make.random_sae(), 0)


def test_to_jump_relu():
  sae = make.random_sae("relu")
  x = random_vectors(sae, 9)
  np.testing.assert_array_equal(folding.to_jump_relu(sae)(x), sae(x))
  already = make.random_sae()
  assert folding.to_jump_relu(already) is already
  with pytest.raises(ConfigError, match="top_k"):
    folding.to_jump_relu(make.random_sae("top_k"))


def test_other_kinds():
  with pytest.raises(ConfigError, match="Crosscoder"):
    folding.fold_input_bias(make.random_crosscoder())
  plain = dataclasses.replace(make.random_sae(), b_in=None)
  assert folding.fold_input_bias(plain) is plain
