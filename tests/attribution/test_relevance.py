"""Relevance of a whole model: conservation, and equality with lxt."""

import pathlib

import numpy as np
import pytest

import gemma_scope as gs
from gemma_scope.activations.tokens import TokenBatch

GOLDEN = pathlib.Path(__file__).parent.parent / "goldens" / "lxt.npz"
PROMPT = "Mary and John went to Paris"


@pytest.fixture(scope="module")
def golden():
  return np.load(GOLDEN)


def bucketed(ids):
  """A row that shares its compiled program with rows of like length."""
  return TokenBatch(ids[None], np.ones_like(ids)[None], exact=False)


def names_of(golden):
  return sorted({key.rsplit("/", 1)[0] for key in golden if "/" in key})


@pytest.mark.parametrize("method", ["cp_lrp", "lrp_gamma"])
def test_every_layer_sums_to_the_target(tiny_lm, method):
  found = gs.attribute(
    tiny_lm, PROMPT, " Paris", method=method, at=["embed", "resid_post[:]"]
  )
  for site in found:
    np.testing.assert_allclose(found.total(site), found.target, rtol=1e-4)


@pytest.mark.real
def test_attn_lrp_is_that_of_lxt(real_lm, golden):
  names = names_of(golden)
  assert len(names) >= 20
  for name in names:
    found = gs.attribute(
      real_lm,
      bucketed(golden[f"{name}/tokens"]),
      int(golden[f"{name}/target"]),
      method="attn_lrp",
    )
    expected = golden[f"{name}/relevance"].astype(np.float64)
    ours = np.asarray(found.per_token().data_array)[0]
    error = np.linalg.norm(ours - expected) / np.linalg.norm(expected)
    assert error <= 1e-4, (name, error)


@pytest.mark.real
def test_the_real_model_conserves(real_lm, golden):
  for name in names_of(golden)[::4]:
    found = gs.attribute(
      real_lm,
      bucketed(golden[f"{name}/tokens"]),
      int(golden[f"{name}/target"]),
      method="cp_lrp",
      at=["embed", "resid_post[:]"],
    )
    for site in found:
      np.testing.assert_allclose(found.total(site), found.target, rtol=1e-4)
