"""How a dictionary is connected follows from its sites and what it offers."""

import jax.numpy as jnp
import numpy as np
from penzai import pz
import pytest

from gemma_scope import errors
from gemma_scope.sites import Site
from gemma_scope.surgery import ports as lib
from gemma_scope.testing.tiny import tiny_config
from tests.surgery.stand_ins import Cross, CrossLayer, normal, sae


def sites(name, *layers):
  return [Site(name, layer) for layer in layers]


CLT = CrossLayer(
  normal(1, 2, 32, 10), normal(2, 2, 2, 10, 32), normal(3, 2, 32, 32)
)
CROSS = Cross(normal(4, 2, 32, 10), normal(5, 2, 10, 32))


@pytest.mark.parametrize(
  ("reads", "writes", "layer", "expected"),
  [
    (sites("z", 3), sites("z", 3), sae(), (False, False, False, False)),
    (
      sites("mlp_in", 3),
      sites("mlp_write", 3),
      sae(),
      (False, False, False, False),
    ),
    (
      sites("mlp_in", 3),
      sites("mlp_write", 5),
      sae(),
      (False, False, True, False),
    ),
    (
      sites("mlp_in", 3, 5),
      sites("mlp_write", 3, 5),
      CLT,
      (True, False, True, False),
    ),
    (
      sites("mlp_write", 3, 5),
      sites("mlp_in", 3, 5),
      CLT,
      (True, True, True, True),
    ),
    (
      sites("resid_post", 3, 5),
      sites("resid_post", 3, 5),
      CROSS,
      (False, True, True, True),
    ),
    (
      sites("resid_post", 1, 2),
      sites("resid_post", 2, 3),
      CROSS,
      (False, True, True, False),
    ),
  ],
)
def test_connection(reads, writes, layer, expected):
  found = lib.ports_of(reads, writes, layer)
  assert (found.layered, found.joint, found.crosses, found.ahead) == expected


def test_vectors_and_back():
  z = pz.nx.wrap(
    jnp.arange(48.0).reshape(4, 3, 1, 4), "projection", "seq", "batch", "heads"
  )
  flat = lib.vectors(z)
  assert flat.shape == (1, 3, 16)
  assert lib.like(flat, z).named_shape == dict(
    batch=1, seq=3, heads=4, projection=4
  )
  back = lib.like(flat, z).order_like(z)
  np.testing.assert_array_equal(back.data_array, z.data_array)


def test_number_of_latents():
  config = tiny_config()
  one = lib.ports_of(sites("z", 3), sites("z", 3), sae(64, 30))
  assert lib.check_shapes(sae(64, 30), one, config) == 30
  assert lib.check_shapes(pz.nn.Identity(), one, config) is None
  with pytest.raises(errors.ConfigError, match="width"):
    lib.check_shapes(sae(32), one, config)
