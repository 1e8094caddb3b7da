"""Exactly the k largest: against a sort, with ties, sharded, vmapped."""

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import numpy as np
import pytest

from gemma_scope.dictionaries import top_k
from tests.dictionaries.oracle import largest

TINY = np.finfo(np.float32).tiny
ROWS = {
  "normal": lambda rng, shape: rng.standard_normal(shape),
  "many ties": lambda rng, shape: rng.integers(-2, 3, shape),
  "all equal": lambda rng, shape: np.ones(shape),
  "all negative": lambda rng, shape: -rng.uniform(1, 2, shape),
  "huge and tiny": lambda rng, shape: np.exp(rng.uniform(-80, 80, shape)),
  "few positive": lambda rng, shape: rng.standard_normal(shape) - 2.5,
  "infinite": lambda rng, shape: np.where(
    rng.uniform(size=shape) < 0.1, np.inf, rng.standard_normal(shape)
  ),
}


@pytest.fixture(params=[False, True], ids=["loop", "written out"])
def written_out(request, monkeypatch):
  """Small arrays are searched in a loop, large ones without."""
  if request.param:
    monkeypatch.setattr(top_k, "_LARGE", 0)


def draw(kind, shape, seed=0):
  values = ROWS[kind](np.random.default_rng(seed), shape)
  return values.astype(np.float32)


def by_rows(values, k):
  return np.stack([largest(row, k) > 0 for row in values])


def by_batch(values, total):
  return (largest(values.reshape(-1), total) > 0).reshape(values.shape)


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize(("width", "k"), [(64, 5), (37, 1), (24, 40)])
def test_rows_are_the_oracle(kind, width, k):
  values = draw(kind, (9, width))
  np.testing.assert_array_equal(
    top_k.top_k_mask(jnp.asarray(values), k), by_rows(values, k)
  )


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("total", [1, 30, 200])
def test_batch_is_the_oracle(kind, total):
  values = draw(kind, (9, 44))
  np.testing.assert_array_equal(
    top_k.batch_top_k_mask(jnp.asarray(values), total), by_batch(values, total)
  )


def test_written_out_is_the_same(written_out):
  values = draw("many ties", (6, 40))
  found = jax.jit(lambda v: top_k.top_k_mask(v, 4))(values)
  np.testing.assert_array_equal(found, by_rows(values, 4))


def test_keeps_what_lax_top_k_keeps():
  values = jnp.abs(draw("many ties", (9, 64))) + 1
  index = jax.lax.top_k(values, 7)[1]
  expected = jnp.zeros(values.shape, bool).at[jnp.arange(9)[:, None], index]
  np.testing.assert_array_equal(top_k.top_k_mask(values, 7), expected.set(True))


@pytest.mark.parametrize("kind", ["normal", "many ties"])
@pytest.mark.parametrize("shape", [(1, 8), (4, 2)])
def test_sharded_is_unsharded(kind, shape):
  mesh = Mesh(np.array(jax.devices()).reshape(shape), ("data", "model"))
  values = draw(kind, (8, 64))
  sharding = NamedSharding(mesh, PartitionSpec("data", "model"))
  placed = jax.device_put(values, sharding)
  rows = jax.jit(lambda v: top_k.top_k_mask(v, 6))
  batch = jax.jit(lambda v: top_k.batch_top_k_mask(v, 48))
  np.testing.assert_array_equal(rows(placed), by_rows(values, 6))
  np.testing.assert_array_equal(batch(placed), by_batch(values, 48))


def test_latents_are_not_gathered():
  """Sharded over the model axis, only counts travel between devices."""
  mesh = Mesh(np.array(jax.devices()), ("model",))
  sharding = NamedSharding(mesh, PartitionSpec(None, "model"))
  values = jax.ShapeDtypeStruct((8, 512), jnp.float32, sharding=sharding)
  compiled = (
    jax.jit(lambda v: top_k.top_k_mask(v, 6), out_shardings=sharding)
    .lower(values)
    .compile()
  )
  text = compiled.as_text()
  assert "all-reduce" in text
  assert "all-gather" not in text


def test_vmap():
  values = draw("many ties", (3, 5, 32))
  found = jax.vmap(lambda v: top_k.top_k_mask(v, 4))(jnp.asarray(values))
  np.testing.assert_array_equal(found, [by_rows(v, 4) for v in values])


def test_subnormal_numbers_count_as_zero():
  values = jnp.asarray([[TINY / 2, 0, 0, 0, -1]], jnp.float32)
  assert not top_k.top_k_mask(values, 2).any()


def test_the_choice_has_no_derivative():
  values = jnp.asarray(draw("normal", (3, 16)))
  kept = lambda v: jnp.where(top_k.top_k_mask(v, 4), v, 0).sum()  # noqa: E731
  expected = by_rows(np.asarray(values), 4)
  np.testing.assert_array_equal(jax.grad(kept)(values), expected)
