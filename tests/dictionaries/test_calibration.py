"""Rounding that heeds the vectors read: nearer than nearest steps."""

import jax.numpy as jnp
import numpy as np
import pytest

from gemma_scope import dictionaries as gsd
from gemma_scope import errors
from gemma_scope.dictionaries import calibration, own_format
from gemma_scope.dictionaries.arrays import map_arrays
from gemma_scope.testing import dictionaries as make
from tests.dictionaries.family import SINGLE

RNG = np.random.default_rng(0)


def vectors(dictionary, rows=2000):
  """Vectors that lie near few directions, of very unequal length."""
  width = dictionary.width_in
  few = RNG.standard_normal((rows, 6)) @ RNG.standard_normal((6, width))
  lengths = np.exp(RNG.standard_normal((rows, 1)) * 0.3)
  noise = 0.05 * RNG.standard_normal((rows, width))
  return ((few + noise + 2.0) * lengths).astype(np.float32)


def far(dictionary, other, x):
  """Mean squared distance of two reconstructions."""
  return float(jnp.mean((dictionary(x) - other(x)) ** 2))


@pytest.mark.parametrize("name", SINGLE)
def test_is_nearer_than_plain_rounding_on_other_vectors(name):
  dictionary = SINGLE[name]()
  x = vectors(dictionary, 4000)
  seen, new = x[:2000], x[2000:]
  found = gsd.calibrated(dictionary, seen, levels=31)
  plain = own_format.rounded(dictionary, 31)
  assert far(dictionary, found, new) < 0.7 * far(dictionary, plain, new)


@pytest.mark.parametrize("name", SINGLE)
def test_int8_rows_hold_it_exactly(name, tmp_path):
  dictionary = SINGLE[name]()
  found = gsd.calibrated(dictionary, vectors(dictionary))
  folder = gsd.dictionary_to_folder(found, tmp_path / "d", int8=True)
  back = gsd.load(folder)

  def compare(a, b):
    scale = np.abs(np.asarray(a.data_array)).max()
    np.testing.assert_allclose(
      a.data_array, b.data_array, rtol=0, atol=2e-7 * scale
    )

  for field in ("w_enc", "w_dec", "b_enc", "b_dec"):
    compare(getattr(found, field), getattr(back, field))


def test_inputs_that_do_not_move_together_are_rounded_to_the_nearest_step():
  weights = RNG.standard_normal((5, 3))
  scale = np.broadcast_to(np.abs(weights).max(axis=0) / 7, weights.shape)
  spread = np.diag([3.0, 0.1, 1.0, 0.0, 2.0])
  found = calibration._in_steps(weights, scale, spread, 7)
  np.testing.assert_allclose(found, np.rint(weights / scale) * scale)


def test_products_move_less_than_with_nearest_steps():
  n, levels = 12, 15
  costs = []
  for _ in range(20):
    inputs = RNG.standard_normal((400, 3)) @ RNG.standard_normal((3, n))
    inputs += 0.1 * RNG.standard_normal(inputs.shape)
    covariance = np.cov(inputs.T, bias=True)
    weights = RNG.standard_normal((n, 1))
    scale = np.broadcast_to(np.abs(weights).max() / levels, weights.shape)
    found = calibration._in_steps(weights, scale, covariance, levels)
    steps = found / scale
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-9)
    assert np.abs(steps).max() <= levels + 1e-9
    lost = [weights - q for q in (found, np.rint(weights / scale) * scale)]
    costs.append([(e.T @ covariance @ e).item() for e in lost])
  ours, nearest = np.mean(costs, axis=0)
  assert ours < 0.4 * nearest


def test_long_vectors_count_as_ones_of_median_length():
  inputs = RNG.standard_normal((101, 4))
  inputs[0] *= 1000
  mean, covariance = calibration._moments(inputs)
  inputs[0] *= 1e6
  again = calibration._moments(inputs)
  np.testing.assert_allclose(again[0], mean, atol=0.2)
  assert np.trace(covariance) < 20
  assert np.trace(again[1]) < 1e5


def test_biases_take_what_the_mean_loses():
  sae = make.random_sae("relu")
  x = np.full((64, sae.width_in), 3.0, np.float32)
  found = gsd.calibrated(sae, x, levels=7)
  np.testing.assert_allclose(found.encode(x), sae.encode(x), atol=2e-4)
  np.testing.assert_allclose(found(x), sae(x), atol=2e-3)
  plain = own_format.rounded(sae, 7)
  assert np.abs(plain(x) - sae(x)).max() > 0.05


def test_latents_that_never_fire_keep_their_nearest_steps():
  sae = make.random_sae("relu")
  b_enc = np.asarray(sae.b_enc.data_array).copy()
  b_enc[:4] = -1e4
  dead = map_arrays(lambda a: a, sae)
  dead = type(sae)(
    **{f: getattr(sae, f) for f in ("w_enc", "w_dec", "b_dec", "activation")},
    b_enc=own_format.named(b_enc, "latents"),
    b_in=sae.b_in,
    about=sae.about,
  )
  found = gsd.calibrated(dead, vectors(dead))
  plain = own_format.rounded(dead)
  np.testing.assert_allclose(
    found.w_dec.unwrap("latents", "output")[:4],
    plain.w_dec.unwrap("latents", "output")[:4],
    rtol=1e-5,
  )


def test_dictionaries_of_several_layers_are_refused():
  with pytest.raises(errors.ConfigError, match="one layer"):
    gsd.calibrated(make.random_cross_layer(), np.zeros((2, 32), np.float32))


def test_levels_are_checked():
  sae = make.random_sae()
  with pytest.raises(errors.ConfigError, match="levels=200"):
    gsd.calibrated(sae, vectors(sae), levels=200)
