"""DeepLIFT of small networks against captum's, stored in tests/goldens."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gemma_scope.attribution.deeplift import deep_lift

STORED = dict(
  np.load(
    pathlib.Path(__file__).parent.parent / "goldens" / "captum_methods.npz"
  )
)
ACTIVATIONS = {
  "relu": jax.nn.relu,
  "tanh": jnp.tanh,
  "sigmoid": jax.nn.sigmoid,
  "softplus": jax.nn.softplus,
  "elu": jax.nn.elu,
  "leaky_relu": jax.nn.leaky_relu,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_contributions_are_captums(name):
  g = {
    key.removeprefix(f"{name}/"): value
    for key, value in STORED.items()
    if key.startswith(f"{name}/")
  }
  act = ACTIVATIONS[name]

  def network(x):
    h = act(jnp.matmul(x, g["w0"]) + g["b0"][None])
    h = act(jnp.matmul(h, g["w1"]) + g["b1"][None])
    return jnp.matmul(h, g["w2"])[:, 0]

  np.testing.assert_allclose(network(g["x"]), g["value"], rtol=1e-5, atol=1e-6)
  found = np.asarray(deep_lift(network, g["x"], g["reference"]))
  scale = np.abs(g["deeplift"]).max()
  np.testing.assert_allclose(found, g["deeplift"], atol=1e-5 * scale)
  change = g["value"] - g["reference_value"]
  np.testing.assert_allclose(found.sum(1), change, atol=1e-5 * scale)


def test_trees_and_other_dtypes():
  x = {"a": jnp.ones(3, jnp.bfloat16), "b": jnp.full(2, 2.0)}
  zero = jax.tree.map(jnp.zeros_like, x)

  def f(v):
    return (v["a"] ** 2).sum().astype(jnp.float32) + v["b"].sum()

  found = deep_lift(f, x, zero)
  np.testing.assert_array_equal(found["a"], np.ones(3))
  np.testing.assert_array_equal(found["b"], [2.0, 2.0])
  assert found["a"].dtype == jnp.float32
