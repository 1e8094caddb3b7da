"""First parameters, projection and constraints."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gemma_scope.training import parameters
from tests.training import runs

KEY = jax.random.key(0)


def begun(kind, **fields):
  group = runs.group(kind, form=fields)
  layout = parameters.layout_of(group, runs.D, runs.D)
  ends = jnp.arange(layout.sites * runs.D, dtype=jnp.float32)
  return group, layout, parameters.init(KEY, group, layout, ends, -ends)


@pytest.mark.parametrize("kind", list(runs.ENDS))
def test_decoders_begin_as_unit_rows_and_encoders_as_their_transposes(kind):
  _, layout, params = begun(kind)
  for part in params["parts"]:
    norms = np.linalg.norm(part["w_dec"], axis=1)
    np.testing.assert_allclose(norms, 1, rtol=1e-5)
    width = part["w_enc"].shape[0]
    np.testing.assert_array_equal(part["w_enc"].T, part["w_dec"][:, :width])
  assert len(params["parts"]) == layout.parts
  assert params["b_dec"].shape == (layout.written,)


def test_parts_of_a_clt_write_to_their_own_site_and_the_later_ones():
  _, layout, params = begun("clt", affine_skip=True)
  shapes = [p["w_dec"].shape for p in params["parts"]]
  assert shapes == [(runs.WIDTH, n * runs.D) for n in (3, 2, 1)]
  assert layout.offset(2) == 2 * runs.D
  second = params["parts"][1]
  np.testing.assert_array_equal(second["b_in"], np.arange(16, 32))
  assert second["skip"].shape == (runs.D, runs.D)


def test_other_widths_get_encoders_of_their_own():
  group = runs.group("transcoder")
  layout = parameters.layout_of(group, 8, runs.D)
  ends = jnp.zeros(8), jnp.zeros(runs.D)
  (part,) = parameters.init(KEY, group, layout, *ends)["parts"]
  assert part["w_enc"].shape == (8, runs.WIDTH)
  np.testing.assert_allclose(
    np.linalg.norm(part["w_enc"], axis=0), 1, rtol=1e-5
  )


def test_gradients_lose_the_part_along_the_rows():
  _, _, params = begun("sae")
  grads = jax.tree.map(
    lambda p: jax.random.normal(jax.random.key(1), p.shape), params
  )
  found = parameters.project_gradients(grads, params)
  w, g = params["parts"][0]["w_dec"], found["parts"][0]["w_dec"]
  np.testing.assert_allclose((w * g).sum(1), 0, atol=1e-6)
  np.testing.assert_array_equal(
    found["parts"][0]["w_enc"], grads["parts"][0]["w_enc"]
  )
  back = g + (w * grads["parts"][0]["w_dec"]).sum(1, keepdims=True) * w
  np.testing.assert_allclose(back, grads["parts"][0]["w_dec"], atol=1e-5)


def test_constraints():
  _, _, params = begun("sae")
  part = params["parts"][0]
  low = part | {"w_dec": 3 * part["w_dec"], "threshold": -part["threshold"]}
  (found,) = parameters.constrain({"parts": (low,), "b_dec": 0}, True)["parts"]
  np.testing.assert_allclose(
    np.linalg.norm(found["w_dec"], axis=1), 1, rtol=1e-5
  )
  np.testing.assert_array_equal(found["threshold"], 0)
  (free,) = parameters.constrain({"parts": (low,), "b_dec": 0}, False)["parts"]
  np.testing.assert_array_equal(free["w_dec"], low["w_dec"])


def test_norms_are_added_up_over_sites():
  w = jax.random.normal(KEY, (5, 3 * runs.D))
  expected = sum(
    np.linalg.norm(w[:, i * runs.D : (i + 1) * runs.D], axis=1)
    for i in range(3)
  )
  found = parameters.decoder_norms({"w_dec": w}, runs.D)
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_rows_of_zeros_stay():
  np.testing.assert_array_equal(parameters.unit_rows(jnp.zeros((2, 3))), 0)
