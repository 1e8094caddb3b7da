"""Random dictionaries are as active as they say, and reproducible."""

import jax
import numpy as np

from gemma_scope.testing import dictionaries


def test_seed_decides():
  first, same, other = (dictionaries.random_sae(seed=s) for s in (1, 1, 2))
  for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(same)):
    np.testing.assert_array_equal(a, b)
  assert not np.array_equal(
    jax.tree.leaves(first)[0], jax.tree.leaves(other)[0]
  )


def test_vectors_have_the_dictionarys_form():
  sae = dictionaries.random_sae()
  assert dictionaries.random_vectors(sae, 2, 3).shape == (2, 3, 32)
  clt = dictionaries.random_cross_layer()
  assert dictionaries.random_vectors(clt, 5).shape == (3, 5, 32)
