"""Decoding from files; whole dictionaries are tested in test_loading."""

import jax.numpy as jnp
import numpy as np

from gemma_scope.dictionaries.arrays import named
from gemma_scope.dictionaries.mapped import write_from_files


def test_no_active_latent_gives_the_biases():
  decoders = [
    named(np.ones((6, 2, 3), np.float32), "latents", "layer", "output"),
    named(np.ones((6, 1, 3), np.float32), "latents", "layer", "output"),
  ]
  biases = [named(np.full(3, i, np.float32), "output") for i in (4.0, 5.0)]
  zeros = jnp.zeros((2, 6))
  first, second = write_from_files(decoders, biases, [zeros, zeros])
  np.testing.assert_array_equal(first, np.full((2, 3), 4))
  np.testing.assert_array_equal(second, np.full((2, 3), 5))
  one = zeros.at[0, 2].set(7)
  first, second = write_from_files(decoders, biases, [one, zeros])
  np.testing.assert_array_equal(first, [[11] * 3, [4] * 3])
  np.testing.assert_array_equal(second, [[12] * 3, [5] * 3])
