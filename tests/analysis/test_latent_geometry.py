"""Lengths and cosines of one latent, against loops."""

import dataclasses

import numpy as np
import pytest

from gemma_scope.analysis.latent_geometry import latent_geometry
from gemma_scope.errors import ConfigError
from gemma_scope.testing import dictionaries as make


def rows(array, inside):
  return np.asarray(array.unwrap("latents", inside), np.float64)


def cosine(a, b):
  return a @ b / np.sqrt((a @ a) * (b @ b))


@pytest.mark.parametrize("index", [0, 17, 63])
def test_an_sae(index):
  sae = make.random_sae()
  found = latent_geometry(sae, index, neighbours=5)
  reads, writes = rows(sae.w_enc, "input"), rows(sae.w_dec, "output")
  assert found.encoder_norm == pytest.approx(np.linalg.norm(reads[index]))
  assert found.decoder_norm == pytest.approx(np.linalg.norm(writes[index]))
  assert found.cosine == pytest.approx(cosine(reads[index], writes[index]))
  assert found.bias == pytest.approx(float(sae.b_enc.data_array[index]))
  threshold = float(sae.activation.threshold.data_array[index])
  assert found.threshold == pytest.approx(threshold)
  cosines = {
    j: cosine(writes[index], writes[j]) for j in range(64) if j != index
  }
  best = sorted(cosines, key=lambda j: -cosines[j])[:5]
  assert [j for j, _ in found.neighbours] == best
  values = [v for _, v in found.neighbours]
  assert values == pytest.approx([cosines[j] for j in best], rel=1e-5)


def test_a_crosscoder_takes_its_layers_together():
  crosscoder = make.random_crosscoder("relu")
  writes = np.concatenate([rows(w, "output") for w in crosscoder.w_dec], 1)
  found = latent_geometry(crosscoder, 3, neighbours=1)
  assert found.decoder_norm == pytest.approx(np.linalg.norm(writes[3]))
  assert found.threshold is None
  ((j, value),) = found.neighbours
  assert value == pytest.approx(cosine(writes[3], writes[j]), rel=1e-5)


def test_what_is_read_elsewhere_has_no_cosine():
  assert latent_geometry(make.random_transcoder(), 3).cosine is None


def test_latents_of_length_zero():
  sae = make.random_sae()
  nothing = dataclasses.replace(sae, w_dec=0.0 * sae.w_dec)
  found = latent_geometry(nothing, 3)
  assert found.decoder_norm == found.cosine == 0


@pytest.mark.parametrize(
  ("dictionary", "index", "match"),
  [
    (make.random_sae(), 64, r"latent 64 of sae.*\n.*from 0 to 63"),
    (make.random_sae(), -1, "latent -1"),
    (make.random_cross_layer(), 0, "latents of its own"),
  ],
)
def test_refusals(dictionary, index, match):
  with pytest.raises(ConfigError, match=match):
    latent_geometry(dictionary, index)
