"""Operations are found in inner functions and counted through scans."""

import jax
import jax.numpy as jnp

from gemma_scope.testing import programs


def looped(x, w):
  def body(carry, _):
    return jax.jit(jnp.dot)(carry, w), carry.sum()

  x, sums = jax.lax.scan(body, x, length=5)
  return jax.lax.cond(x[0, 0] > 0, lambda: sums, lambda: -sums), x @ x


def test_operations_are_counted_through_loops_and_inner_functions():
  found = programs.operations(looped, jnp.ones((3, 3)), jnp.ones((3, 3)))
  assert programs.count(found, "dot_general") == 6
  assert programs.count(found, "reduce_sum") == 5
  assert programs.count(found, "neg") == 1
  assert programs.count(found, "scan") == 1
  assert programs.count(found, "exp") == 0
  assert programs.largest(found) == 9


def test_shapes_stand_in_for_arrays():
  huge = jax.ShapeDtypeStruct((10**6, 10**6), jnp.float32)
  (found,) = programs.operations(jnp.exp, huge)
  assert found == programs.Operation("exp", ((10**6, 10**6),), 1)
  assert programs.largest([found]) == 10**12
