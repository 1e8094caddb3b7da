"""Products over named axes: the right sum, order, dtype and precision."""

import jax
import jax.numpy as jnp
import numpy as np
from penzai import pz
import pytest

from gemma_scope.model.linear import (
  Linear,
  ShardedLinear,
  contract,
  precision_of,
)

RNG = np.random.default_rng(0)


def test_one_axis_becomes_several():
  x = RNG.normal(size=(2, 3, 4)).astype(np.float32)
  w = RNG.normal(size=(4, 5, 6)).astype(np.float32)
  layer = Linear(
    pz.nx.wrap(jnp.asarray(w), "embedding", "heads", "projection"),
    ("embedding",),
  )
  # The summed axis need not be the last one of the argument.
  value = pz.nx.wrap(jnp.asarray(x), "batch", "seq", "embedding")
  turned = value.order_as("embedding", "seq", "batch")
  expected = np.einsum("bse,enh->bsnh", x, w)
  for argument in (value, turned):
    found = layer(argument)
    assert set(found.named_axes) == {"batch", "seq", "heads", "projection"}
    data = found.unwrap("batch", "seq", "heads", "projection")
    np.testing.assert_allclose(data, expected, atol=1e-5)


def test_several_axes_become_one():
  x = RNG.normal(size=(2, 3, 5, 6)).astype(np.float32)
  w = RNG.normal(size=(5, 6, 4)).astype(np.float32)
  layer = Linear(
    pz.nx.wrap(jnp.asarray(w), "heads", "projection", "embedding"),
    ("heads", "projection"),
  )
  value = pz.nx.wrap(jnp.asarray(x), "batch", "seq", "heads", "projection")
  value = value.order_as("batch", "projection", "seq", "heads")
  found = layer(value).unwrap("batch", "seq", "embedding")
  expected = np.einsum("bsnh,nhe->bse", x, w)
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_bfloat16_accumulates_in_float32():
  """A bfloat16 sum of ones would stop at 256."""
  ones = jnp.ones((1, 4000), jnp.bfloat16)
  found = contract(ones, ones.T, 1)
  assert found.dtype == jnp.bfloat16
  assert float(found[0, 0]) == float(jnp.bfloat16(4000))


@pytest.mark.parametrize(
  ("dtype", "precision"),
  [("float32", "HIGHEST"), ("bfloat16", "DEFAULT")],
)
def test_float32_means_float32_on_every_device(dtype, precision):
  """TPUs and GPUs otherwise round float32 operands."""
  assert precision_of(jnp.dtype(dtype)) == jax.lax.Precision[precision]
  x = jnp.ones((2, 2), dtype)
  (product,) = [
    e
    for e in jax.make_jaxpr(lambda x: contract(x, x, 1))(x).eqns
    if e.primitive.name == "dot_general"
  ]
  assert product.params["precision"] == (jax.lax.Precision[precision],) * 2
  assert product.params["preferred_element_type"] == jnp.float32


def test_a_sharded_product_is_the_same_product():
  rng = np.random.default_rng(0)
  x = pz.nx.wrap(
    jnp.asarray(rng.normal(size=(2, 3, 4, 5)), jnp.float32),
    *("batch", "seq", "heads", "projection"),
  )
  w = pz.nx.wrap(
    jnp.asarray(rng.normal(size=(4, 5, 2, 6)), jnp.float32),
    *("heads", "projection", "gate_up", "neurons"),
  )
  inputs = ("heads", "projection")
  merged, apart = Linear(w, inputs)(x), ShardedLinear(w, inputs)(x)
  assert merged.named_axes == apart.named_axes
  np.testing.assert_allclose(
    merged.data_array, apart.data_array, rtol=1e-5, atol=1e-5
  )
