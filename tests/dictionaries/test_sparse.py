"""Gathering active rows gives the dense product."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gemma_scope.dictionaries import sparse
from gemma_scope.testing import dictionaries as make
from gemma_scope.testing.dictionaries import random_vectors


@pytest.mark.parametrize(("width", "most"), [(64, 9), (256, 1), (600, 200)])
def test_active_is_nonzero(width, most):
  rng = np.random.default_rng(width)
  latents = rng.uniform(size=(11, width)) * (
    rng.uniform(size=(11, width)) < 0.1
  )
  latents[3] = 0
  latents[4] = 1
  found = sparse.active(jnp.asarray(latents, jnp.float32), most)
  for row in range(11):
    expected = np.flatnonzero(latents[row])
    assert found.count[row] == len(expected)
    kept = expected[:most]
    np.testing.assert_array_equal(found.indices[row, : len(kept)], kept)
    np.testing.assert_allclose(
      found.values[row, : len(kept)], latents[row, kept], rtol=1e-6
    )
    assert not np.asarray(found.values[row, len(kept) :]).any()


@pytest.mark.parametrize("lead", [(), (2, 3)])
@pytest.mark.parametrize("most", [4, 30])
def test_sparse_is_dense(lead, most, monkeypatch):
  """Also where a vector has more active latents than places."""
  monkeypatch.setattr(sparse, "gathering_pays", lambda *_: True)
  sae = make.random_sae(latents=300)
  latents = sae.encode(random_vectors(sae, *lead))
  active = int((latents != 0).sum(-1).max())
  assert active > 4
  found = sparse.decode_sparsely(sae, latents, most)
  np.testing.assert_allclose(found, sae.decode(latents), atol=1e-5)
  jitted = jax.jit(lambda f: sparse.decode_sparsely(sae, f, most))(latents)
  np.testing.assert_allclose(jitted, found, atol=1e-6)


def test_decode_active():
  sae = make.random_sae("top_k")
  latents = sae.encode(random_vectors(sae, 7))
  found = sparse.decode_active(sae, sparse.active(latents, 6))
  np.testing.assert_allclose(found, sae.decode(latents), atol=1e-5)


def test_the_rule():
  """One token of a wide dictionary gathers, a training batch does not."""
  assert sparse.gathering_pays(1, 1 << 18, 256)
  assert sparse.gathering_pays(64, 1 << 18, 256)
  assert sparse.gathering_pays(1, 1 << 14, 256)
  assert not sparse.gathering_pays(4096, 1 << 14, 64)
  assert not sparse.gathering_pays(1, 1 << 12, 1 << 12)


def test_dense_where_gathering_does_not_pay():
  sae = make.random_sae()
  latents = sae.encode(random_vectors(sae, 7))
  np.testing.assert_array_equal(
    sparse.decode_sparsely(sae, latents, 60), sae.decode(latents)
  )
