"""Direct effects of latents on the logits, against a dense product."""

import jax.numpy as jnp
import numpy as np
import pytest

from gemma_scope import testing
from gemma_scope.analysis import latent_logits as lib
from gemma_scope.errors import SiteError
from gemma_scope.testing import dictionaries as make


@pytest.fixture(scope="module")
def lm():
  return testing.tiny_lm()


def dense(lm, rows):
  """[latents, vocabulary], in float64."""
  gain = 1 + np.asarray(lm.model.final_norm.scale.data_array, np.float64)
  table = np.asarray(lm.model.table.data_array, np.float64)
  return (np.asarray(rows, np.float64) * gain) @ table.T


@pytest.mark.parametrize("latents", [64, 70, 130])
def test_against_the_dense_product(lm, latents):
  sae = make.random_sae(latents=latents)
  tokens, logits = lib.latent_logits(lm, sae, count=5)
  assert tokens.shape == logits.shape == (latents, 2, 5)
  expected = dense(lm, sae.w_dec.unwrap("latents", "output"))
  order = np.argsort(expected, axis=1)
  np.testing.assert_array_equal(tokens[:, 0], order[:, ::-1][:, :5])
  np.testing.assert_array_equal(tokens[:, 1], order[:, :5])
  found = np.take_along_axis(expected, tokens.reshape(latents, -1), axis=1)
  np.testing.assert_allclose(logits.reshape(latents, -1), found, rtol=1e-5)


def test_the_last_layer_of_a_crosscoder(lm):
  crosscoder = make.random_crosscoder()
  rows = lib.decoder_rows(crosscoder)
  expected = crosscoder.w_dec[-1].unwrap("latents", "output")
  np.testing.assert_array_equal(rows, expected)


def test_a_transcoder_writes_to_the_stream(lm):
  rows = lib.decoder_rows(make.random_transcoder())
  assert rows.dtype == jnp.float32


def test_a_logit_is_the_sum_of_what_latents_add(lm):
  """d logit / d activation, at the last layer with the norm's scale held."""
  sae = make.random_sae(layer=7, seed=3)
  rows = lib.decoder_rows(sae)
  stream = np.random.default_rng(0).normal(size=32)
  gain = np.asarray(lib.final_gain(lm.model), np.float64)
  inverse = 1 / np.sqrt(np.mean(stream**2) + lm.config.norm_eps)
  table = np.asarray(lm.model.table.data_array, np.float64)
  step = 1e-3 * np.asarray(rows, np.float64)[9]

  def logits(x):
    return table @ (x * inverse * gain)

  slope = (logits(stream + step) - logits(stream)) / 1e-3 / inverse
  tokens, values = lib.latent_logits(lm, sae, count=3)
  np.testing.assert_allclose(values[9, 0], slope[tokens[9, 0]], rtol=1e-4)


@pytest.mark.parametrize(
  "dictionary",
  [make.random_sae(d=64, site="z"), make.random_cross_layer()],
)
def test_rows_that_are_not_in_the_stream(lm, dictionary):
  with pytest.raises(SiteError, match="not written to the residual stream"):
    lib.latent_logits(lm, dictionary)
