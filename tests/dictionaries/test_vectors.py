"""What callers give and how it comes back; see also test_family."""

import jax.numpy as jnp
from penzai import pz
import pytest

from gemma_scope.dictionaries import vectors
from gemma_scope.errors import SiteError
from gemma_scope.sites import Site
from gemma_scope.testing import dictionaries as make


def test_vector_axes():
  assert vectors.vector_axes(Site("z", 0)) == ("heads", "projection")
  assert vectors.vector_axes(Site("mlp_act", 0)) == ("neurons",)
  assert vectors.vector_axes(Site("resid_post", 0)) == ("embedding",)


@pytest.mark.parametrize(
  "x",
  [
    jnp.ones(()),
    jnp.ones((2, 7)),
    pz.nx.wrap(jnp.ones((2, 8)), "seq", "neurons"),
    pz.nx.wrap(jnp.ones((2, 8)))
    .tag("seq", "embedding")[{"seq": 0}]
    .untag("embedding"),
  ],
)
def test_other_vectors(x):
  with pytest.raises(SiteError, match="does not hold such vectors"):
    vectors.unpack(x, ("embedding",), 8, "such vectors")


def test_z_without_a_number_of_heads():
  sae = make.random_sae(site="z")
  import dataclasses

  sae = sae.with_about(dataclasses.replace(sae.about, heads=None))
  x = pz.nx.wrap(jnp.ones((2, 4, 8)), "seq", "heads", "projection")
  assert sae(x).named_shape == x.named_shape  # from x itself
  with pytest.raises(SiteError, match="How many heads"):
    sae.decode(sae.encode(x))
