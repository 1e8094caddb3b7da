"""Values of several sites; test_family uses them through every kind."""

import jax.numpy as jnp
import numpy as np
from penzai import pz
import pytest

from gemma_scope.dictionaries import layers
from gemma_scope.errors import ConfigError, SiteError


def test_split_and_join():
  x = jnp.arange(24.0).reshape(3, 2, 4)
  np.testing.assert_array_equal(layers.join(layers.split(x, 3)), x)
  named = pz.nx.wrap(x, "layer", "seq", "embedding")
  again = layers.join(layers.split(named, 3))
  np.testing.assert_array_equal(again.unwrap(*named.named_axes), x)


def test_other_number_of_layers():
  with pytest.raises(SiteError, match="needs a vector from each"):
    layers.split(jnp.ones((2, 4)), 3)
  with pytest.raises(SiteError, match="needs a vector from each"):
    layers.split(pz.nx.wrap(jnp.ones((3, 4)), "seq", "embedding"), 3)


def test_unequal_layers():
  with pytest.raises(ConfigError, match="different numbers of latents"):
    layers.join([jnp.ones((2, 4)), jnp.ones((2, 5))])


def test_sum_has_an_order():
  parts = [jnp.asarray(v, jnp.float32) for v in (1e8, 1.0, -1e8)]
  assert layers.add(parts) == (parts[0] + parts[1]) + parts[2]
