"""What the compiler says of a chip's work, and loops counted right."""

import warnings

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
import numpy as np
import pytest

from gemma_scope.planning.costs import (
  Costs,
  compiled,
  costs_by_layers,
  costs_of,
)


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


def test_layers_count_as_often_as_there_are_any():
  """Two kinds of layer, each by itself, against both in one program."""

  def lower(local, globally):
    def f(x, w, v):
      for _ in range(local):
        x = x @ w
      for _ in range(globally):
        x = x @ v @ v.T
      return jnp.tanh(x)

    return jax.jit(f).lower(
      jnp.ones((8, 32)), jnp.ones((32, 32)), jnp.ones((32, 64))
    )

  found = costs_by_layers(lower, 5, 2, {})
  whole = costs_of(lower(5, 2).compile())
  assert found.flops == pytest.approx(whole.flops, rel=0.01)
  assert found.bytes_moved == pytest.approx(whole.bytes_moved, rel=0.05)
  alone = costs_by_layers(lower, 5, 0, {})
  assert alone.flops == pytest.approx(costs_of(lower(5, 0).compile()).flops)


def test_sums_of_costs():
  a = Costs(1.0, 2.0, {"all-reduce": 1}, {"all-reduce": 10.0})
  b = Costs(10.0, 20.0, {"all-gather": 2}, {"all-gather": 5.0})
  assert a.plus(b, 3.0) == Costs(
    31.0,
    62.0,
    {"all-reduce": 1, "all-gather": 6},
    {"all-reduce": 10.0, "all-gather": 15.0},
  )


def test_a_program_that_cannot_be_read_is_told():
  class Compiled:
    def cost_analysis(self):
      return {"flops": 7.0, "bytes accessed": 3.0}

    def as_text(self):
      raise jax.errors.JaxRuntimeError("INTERNAL: RET_CHECK failure")

  found = costs_of(Compiled())
  assert (found.flops, found.messages, found.unread) == (7.0, {}, True)
  assert Costs(1.0, 1.0, {}, {}).plus(found, 2.0).unread


def test_what_a_cache_cannot_give_back_is_compiled():
  class Lowered:
    def compile(self, compiler_options):
      message = "Error reading persistent compilation cache entry for 'f'"
      warnings.warn(message, stacklevel=1)
      return compiler_options

  assert compiled(Lowered(), {"a": "1"}) == {"a": "1"}
  assert compiled(Lowered()) is None
