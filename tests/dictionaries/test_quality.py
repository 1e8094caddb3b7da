"""FVU and L0 against their definitions."""

import numpy as np
import pytest

from gemma_scope.dictionaries.quality import quality
from gemma_scope.testing import dictionaries as make
from gemma_scope.testing.dictionaries import random_vectors
from tests.dictionaries import oracle


@pytest.mark.parametrize("name", ["sae", "clt", "crosscoder"])
def test_is_the_definition(name):
  """Over more than one batch of rows."""
  dictionary = {
    "sae": make.random_sae,
    "clt": lambda: make.random_cross_layer(affine=True),
    "crosscoder": make.random_crosscoder,
  }[name]()
  x = np.asarray(random_vectors(dictionary, 700))
  target = np.asarray(random_vectors(dictionary, 700, seed=5)) + 3
  latents = oracle.encode(dictionary, x)
  y = oracle.rebuild(dictionary, latents, x)
  spread = target - target.mean(axis=-2, keepdims=True)
  found = quality(dictionary, x, target)
  expected = ((target - y) ** 2).sum() / (spread**2).sum()
  assert found.fvu == pytest.approx(expected, rel=1e-5)
  assert found.l0 == pytest.approx((latents != 0).sum() / 700)
  assert found.tokens == 700


def test_a_constant_target_has_no_variance():
  sae = make.random_sae()
  assert quality(sae, np.ones((4, 32)), np.ones((4, 32))).fvu == float("inf")
