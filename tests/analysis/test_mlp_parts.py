"""What a feed-forward wrote, split by a transcoder: the parts add up."""

import dataclasses

import numpy as np
import pytest

from gemma_scope import testing
from gemma_scope.activations.run import capture
from gemma_scope.analysis.direct import SITES, direct_logit_attribution
from gemma_scope.analysis.latent_logits import target_direction
from gemma_scope.analysis.mlp_parts import mlp_parts, strongest_parts
from gemma_scope.attribution.objectives import logit_difference
from gemma_scope.testing import dictionaries as make
from gemma_scope.testing.tiny import tiny_config

PROMPT = " the capital of France is"


@pytest.fixture(scope="module")
def lm():
  return testing.tiny_lm(tiny_config(num_layers=3))


@pytest.fixture
def vectors():
  rng = np.random.default_rng(1)
  return rng.normal(size=(3, 32)).astype(np.float32)


@pytest.mark.parametrize("affine", [False, True])
def test_parts_against_a_loop(vectors, affine):
  transcoder = make.random_transcoder("relu", affine=affine)
  x, written, direction = vectors
  found = mlp_parts(transcoder, x, written, direction, count=5)
  f = np.asarray(transcoder.encode(x))
  rows = np.asarray(transcoder.w_dec.unwrap("latents", "output"))
  shares = [f[j] * float(rows[j] @ direction) for j in range(len(f))]
  assert found.latents == pytest.approx(sum(shares), rel=1e-4)
  bias = float(np.asarray(transcoder.b_dec.unwrap("output")) @ direction)
  assert found.bias == pytest.approx(bias, rel=1e-5)
  skip = 0.0
  if affine:
    skip = float(
      x @ np.asarray(transcoder.skip.unwrap("input", "output")) @ direction
    )
  assert found.skip == pytest.approx(skip, rel=1e-4)
  parts = found.latents + found.skip + found.bias + found.error
  assert parts == pytest.approx(found.total, rel=1e-9)
  assert found.total == pytest.approx(float(written @ direction), rel=1e-5)
  assert found.active == (f > 0).sum()
  order = sorted(range(len(f)), key=lambda j: -abs(shares[j]))[:5]
  assert [j for j, *_ in found.strongest] == order
  for j, activation, share in found.strongest:
    assert activation == pytest.approx(f[j])
    assert share == pytest.approx(shares[j], rel=1e-4)


def test_the_whole_is_direct_logit_attribution(lm):
  acts = capture(lm, PROMPT, [*SITES, "mlp_in[:]"])
  a, b = (lm.tokenizer.token_id(t) for t in (" Paris", " Rome"))
  expected = direct_logit_attribution(lm, PROMPT, logit_difference(a, b))

  def last(site):
    return np.asarray(acts[site].unwrap("batch", "seq", "embedding"))[0, -1]

  direction = target_direction(lm.model, last("resid_post[2]"), a, b)
  for layer in range(3):
    transcoder = make.random_transcoder(layer=layer)
    x, written = last(f"mlp_in[{layer}]"), last(f"mlp_write[{layer}]")
    found = mlp_parts(transcoder, x, written, direction)
    assert found.label == f"mlp_write[{layer}]"
    share = expected[found.label][0]
    assert found.total == pytest.approx(share, rel=1e-3, abs=1e-6)


def test_nothing_active(vectors):
  transcoder = make.random_transcoder("relu")
  quiet = dataclasses.replace(transcoder, b_enc=transcoder.b_enc - 1e6)
  found = mlp_parts(quiet, *vectors)
  assert (found.active, found.strongest, found.latents) == (0, (), 0.0)


def test_the_strongest_of_all(vectors):
  parts = [
    mlp_parts(make.random_transcoder("relu", layer=i, seed=i), *vectors)
    for i in range(3)
  ]
  found = strongest_parts(parts, 6)
  sizes = [abs(row[3]) for row in found]
  assert len(found) == 6
  assert sizes == sorted(sizes, reverse=True)
  assert sizes[0] == max(abs(s) for p in parts for *_, s in p.strongest)
