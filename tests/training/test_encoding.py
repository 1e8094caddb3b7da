"""Latents in training are those of the dictionary that comes of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gemma_scope.training import encoding, parameters
from tests.training import runs

X = jax.random.normal(jax.random.key(3), (24, runs.D))


def begun(activation, kind="sae"):
  group = runs.group(kind, activation)
  layout = parameters.layout_of(group, runs.D, runs.D)
  ends = jax.random.normal(jax.random.key(1), (layout.sites * runs.D,))
  params = parameters.init(jax.random.key(0), group, layout, ends, ends)
  return group, params["parts"]


def encode(group, parts, xs, l0=3.0):
  found = encoding.encode(parts, xs, group, jnp.float32(l0), "float32")
  return [np.asarray(e.active.latents) for e in found]


def plain(part):
  z = (X - part["b_in"][None]) @ part["w_enc"]
  return np.asarray(z), np.asarray(z + part["b_enc"][None])


def test_products_and_all_their_gradients():
  _, (part,) = begun("relu")
  weight = jax.random.normal(jax.random.key(2), (24, runs.WIDTH))

  def ours(part):
    return (weight * encoding.products(part, X, "float32")).sum()

  def oracle(part):
    return (weight * ((X - part["b_in"][None]) @ part["w_enc"])).sum()

  found, expected = jax.grad(ours)(part), jax.grad(oracle)(part)
  for name in ("w_enc", "b_in"):
    np.testing.assert_allclose(
      found[name], expected[name], rtol=1e-4, atol=1e-4
    )


def test_relu_and_gated():
  group, (part,) = begun("relu")
  z, biased = plain(part)
  (f,) = encode(group, (part,), (X,))
  np.testing.assert_allclose(f, np.maximum(biased, 0), atol=1e-5)
  group, (part,) = begun("gated")
  part = part | {
    "log_gain": part["log_gain"] + 0.3,
    "b_enc": part["b_enc"] - 0.5,
  }
  (f,) = encode(group, (part,), (X,))
  expected = np.where(z - 0.5 > 0, np.maximum(z * np.exp(0.3), 0), 0)
  np.testing.assert_allclose(f, expected, atol=1e-5)


def test_top_k_keeps_the_largest():
  group, (part,) = begun("top_k")
  _, z = plain(part)
  (f,) = encode(group, (part,), (X,))
  least = np.sort(z, axis=1)[:, -3][:, None]
  np.testing.assert_allclose(f, np.where(z >= least, z, 0), atol=1e-5)


@pytest.mark.parametrize("kind", ["sae", "clt"])
def test_batch_top_k_counts_all_parts_together(kind):
  group, parts = begun("batch_top_k", kind)
  found = encode(group, parts, (X,) * len(parts), l0=5.0)
  assert sum(np.count_nonzero(f) for f in found) == 5 * 24


def test_a_gate_has_no_gradient_from_latents():
  group, (part,) = begun("gated")

  def value(part):
    found = encoding.encode((part,), (X,), group, jnp.float32(3), "float32")
    return found[0].active.latents.sum()

  grads = jax.grad(value)(part)
  np.testing.assert_array_equal(grads["b_enc"], 0)
  assert np.abs(grads["b_magnitude"]).max() > 0
