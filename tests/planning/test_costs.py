"""What the compiler says of a chip's work, and loops counted right."""

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
import numpy as np
import pytest

from gemma_scope.planning.costs import Costs, costs_by_periods, costs_of


def test_products_of_one_program():
  a, b = jnp.ones((64, 32)), jnp.ones((32, 16))
  found = costs_of(jax.jit(jnp.matmul).lower(a, b).compile())
  assert found.flops == pytest.approx(2 * 64 * 32 * 16, rel=0.01)
  assert found.bytes_moved >= 4 * (64 * 32 + 32 * 16 + 64 * 16)
  assert not found.messages


def test_messages_between_chips():
  mesh = jax.sharding.Mesh(np.array(jax.devices("cpu")[:4]), ("model",))
  split = NamedSharding(mesh, PartitionSpec(None, "model"))
  whole = NamedSharding(mesh, PartitionSpec())
  x = jax.device_put(jnp.ones((8, 64)), split)
  summed = jax.jit(lambda x: x.sum(axis=1), out_shardings=whole)
  found = costs_of(summed.lower(x).compile())
  assert found.messages == {"all-reduce": 1}
  assert found.message_bytes == {"all-reduce": 8 * 4}


def test_loops_count_as_often_as_they_run():
  w = jnp.ones((5, 32, 32))

  def lower(periods):
    def f(x, w):
      # XLA counts the body of a loop once.
      return jax.lax.scan(lambda c, m: (c @ m, None), x @ w[0], w[:periods])[0]

    return jax.jit(f).lower(jnp.ones((8, 32)), w)

  one = 2 * 8 * 32 * 32
  found = costs_by_periods(lower, 5, {})
  assert found.flops == pytest.approx(6 * one, rel=0.02)
  alone = costs_of(lower(5).compile())
  assert alone.flops < 3 * one


def test_sums_of_costs():
  a = Costs(1.0, 2.0, {"all-reduce": 1}, {"all-reduce": 10.0})
  b = Costs(10.0, 20.0, {"all-gather": 2}, {"all-gather": 5.0})
  assert a.plus(b, 3.0) == Costs(
    31.0,
    62.0,
    {"all-reduce": 1, "all-gather": 6},
    {"all-reduce": 10.0, "all-gather": 15.0},
  )
