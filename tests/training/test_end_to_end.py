"""End-to-end finetuning on a tiny model."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gemma_scope import testing
from gemma_scope.activations.corpus.packed_batch import PackedBatch
from gemma_scope.model import gemma
from gemma_scope.testing.dictionaries import (
  random_cross_layer,
  random_sae,
  random_transcoder,
)
from gemma_scope.testing.tiny import tiny_config
from gemma_scope.training import end_to_end
from gemma_scope.training.end_to_end import EndToEnd, finetune


@pytest.fixture(scope="module")
def lm():
  return testing.tiny_lm(tiny_config(num_layers=3, vocab_size=512))


@pytest.fixture(scope="module")
def batch():
  ids = np.random.default_rng(0).integers(8, 500, (2, 12)).astype(np.int32)
  ids[:, 0] = 2
  counted = np.ones((2, 12), bool)
  counted[:, 0] = False
  return PackedBatch(ids, np.ones((2, 12), np.int32), counted)


def arrays(batch):
  return [jnp.asarray(a) for a in (batch.ids, batch.segment_ids, batch.counted)]


def log_p(lm, residual):
  normed, _ = gemma.apply_final_norm(lm.model, residual)
  logits, _ = gemma.unembed(lm.model, normed)
  plain = logits.unwrap("batch", "seq", "vocabulary")
  return np.asarray(jax.nn.log_softmax(plain), np.float64)


def test_the_loss_is_its_formula(lm, batch):
  sae = random_sae(layer=1)
  given = arrays(batch)
  total, scores = jax.jit(lambda m, d: end_to_end.loss(m, d, given, 0.5))(
    lm.model, sae
  )
  clean, taps = gemma.run(
    end_to_end.tap(lm.model, sae.sites_in), given[0], given[1]
  )
  x = np.asarray(taps[sae.sites_in[0]].unwrap("batch", "seq", "embedding"))
  x = x[:, 1:].reshape(-1, 32)
  y = np.asarray(sae(x))
  mse = np.square(x - y).sum() / np.square(x - x.mean(0)).sum()
  assert scores["mse"] == pytest.approx(mse, rel=1e-4)
  latents = np.asarray(sae.encode(x))
  assert scores["l0"] == pytest.approx((latents > 0).sum(1).mean(), rel=1e-5)
  edited = end_to_end.with_dictionary(lm.model, sae, given[2])
  spliced, _ = gemma.run(edited, given[0], given[1])
  p, q = log_p(lm, clean), log_p(lm, spliced)
  kl = (np.exp(p) * (p - q)).sum(-1)[:, 1:].mean()
  assert scores["kl"] == pytest.approx(kl, rel=1e-4)
  # a is such that both parts weigh alike.
  assert total == pytest.approx(mse * (1 + 0.5) / 1.5, rel=1e-4)


def test_tokens_that_do_not_count_keep_their_values(lm, batch):
  sae = random_sae(layer=1)
  ids, segment_ids, counted = arrays(batch)
  none = jnp.zeros_like(counted)
  edited = end_to_end.with_dictionary(lm.model, sae, none)
  a, _ = gemma.run(edited, ids, segment_ids)
  b, _ = gemma.run(lm.model, ids, segment_ids)
  names = tuple(a.named_axes)
  np.testing.assert_allclose(a.unwrap(*names), b.unwrap(*names), atol=1e-5)


def kinds():
  clt = random_cross_layer(kind="clt")
  return {
    "sae": random_sae(layer=1),
    "transcoder": random_transcoder(affine=True, layer=1),
    "clt": clt,
  }


@pytest.mark.parametrize("kind", ["sae", "transcoder", "clt"])
def test_divergence_falls(kind, lm, batch):
  seen = []
  options = EndToEnd(steps=12, learning_rate=0.02)
  tuned = finetune(
    lm,
    kinds()[kind],
    itertools.repeat(batch),
    options,
    watch=lambda step, scores: seen.append((step, scores)),
  )
  assert [s for s, _ in seen] == list(range(1, 13))
  first, last = seen[0][1], seen[-1][1]
  assert last["kl"] < 0.7 * first["kl"]
  assert last["mse"] < first["mse"]
  assert type(tuned) is type(kinds()[kind])
  assert tuned.about == kinds()[kind].about


def test_the_learning_rate_is_relative(lm, batch):
  """A dictionary whose latents are a thousand times as large moves alike."""
  sae = random_sae("relu", layer=1)
  by = 1000.0
  large = dataclasses.replace(
    sae, w_enc=sae.w_enc * by, b_enc=sae.b_enc * by, w_dec=sae.w_dec / by
  )
  options = EndToEnd(steps=2)
  a = finetune(lm, sae, itertools.repeat(batch), options)
  b = finetune(lm, large, itertools.repeat(batch), options)
  np.testing.assert_allclose(
    b.w_enc.data_array / by, a.w_enc.data_array, rtol=1e-3, atol=1e-6
  )
  moved = np.abs(a.w_enc.data_array - sae.w_enc.data_array).max()
  assert moved > 1e-4
