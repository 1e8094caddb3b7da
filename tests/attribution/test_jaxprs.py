"""The inside of JAX's programs, as far as it is touched."""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import numpy as np
import pytest

from gemma_scope.attribution import jaxprs
from tests.attribution.checks import assert_same_bits

X = jnp.linspace(-1.0, 2.0, 6).reshape(2, 3)


def equations(f, *args):
  program, _ = jaxprs.trace(f, args)
  return program.jaxpr.eqns


def test_trace_gives_the_program_and_the_structure_of_its_result():
  program, tree = jaxprs.trace(lambda x, y: {"sum": x + y, "x": x}, (X, X))
  assert [e.primitive.name for e in program.jaxpr.eqns] == ["add"]
  assert jax.tree.unflatten(tree, [1, 2]) == {"sum": 1, "x": 2}


@pytest.mark.parametrize(
  "f",
  [
    jnp.tanh,
    jax.nn.relu,
    jax.jit(jnp.sin),
    lambda x: jax.lax.top_k(x, 2),
    jax.checkpoint(jnp.sin),
    lambda x: jax.lax.scan(lambda c, r: (c + 1, c * r), 1.0, x),
    lambda x: jax.lax.cond(True, jnp.sin, jnp.cos, x),
  ],
)
def test_bind_runs_an_equation_on_other_values(f):
  (eqn,) = equations(f, X)
  constants = [a.val for a in eqn.invars if jaxprs.is_literal(a)]
  assert_same_bits(jaxprs.bind(eqn, [*constants, 2 * X]), f(2 * X))


def test_source_lines_name_this_file_and_the_function():
  def somewhere(x):
    return jnp.sin(x)

  (eqn,) = equations(somewhere, X)
  line = somewhere.__code__.co_firstlineno + 1
  assert f"test_jaxprs.py:{line}" in jaxprs.source_line(eqn)
  assert "somewhere" in jaxprs.source_line(eqn)


def test_place_of_restores_scope_and_line():
  def f(x):
    with jax.named_scope("mlp"):
      return jnp.sin(x)

  (eqn,) = equations(f, X)
  seen = []

  def emitted(x):
    with jax.named_scope("block"), jaxprs.place_of(eqn):
      seen.append(jaxprs.current_scope())
      return jaxprs.bind(eqn, [x])[0]

  (again,) = equations(emitted, X)
  assert seen == ["block/mlp"]
  assert str(again.source_info.name_stack) == "block/mlp"
  assert jaxprs.source_line(again) == jaxprs.source_line(eqn)


def test_scopes_leave_transforms_out():
  seen = []

  def f(x):
    with jax.named_scope("inner"):
      seen.append(jaxprs.current_scope())
      return x.sum()

  def g(x):
    with jax.named_scope("outer"):
      return jax.vmap(f)(x).sum()

  jax.grad(g)(X)
  assert seen == ["outer/inner"]


@pytest.mark.parametrize(
  ("value", "expected"),
  [
    (2.0, 2.0),
    (np.float32(3), 3.0),
    (jnp.bfloat16(1.5), 1.5),
    (jnp.float32(-np.inf), -np.inf),
    (7, 7.0),
    (True, None),
    (jnp.ones(2), None),
    (jax.random.key(0), None),
  ],
)
def test_scalar_constants_are_numbers(value, expected):
  assert jaxprs.number(value) == expected
  # Also while something else is being traced.
  found = []
  jax.make_jaxpr(lambda: found.append(jaxprs.number(value)))()
  assert found == [expected]


def test_a_traced_value_is_no_number():
  found = []
  jax.make_jaxpr(lambda x: found.append(jaxprs.number(x)))(1.0)
  assert found == [None]


def test_every_operation_is_found_in_inner_programs():
  def f(x):
    x = jax.lax.cond(x.sum() > 0, jnp.sin, jnp.cos, x)
    x = jax.jit(jax.checkpoint(jnp.tan))(x)
    return jax.lax.scan(lambda c, r: (c + jnp.exp(r), None), x[0], x)[0]

  program, _ = jaxprs.trace(f, (X,))
  names = set(jaxprs.primitives(program))
  assert {"sin", "cos", "tan", "exp", "cond", "scan"} <= names
  assert "log" not in names


@pytest.mark.parametrize(
  "f", [jax.jit(jnp.sin), jax.checkpoint(jnp.sin), jax.nn.relu]
)
def test_inner_programs_of_calls(f):
  (eqn,) = equations(f, X)
  program = jaxprs.inner_program(eqn)
  assert len(program.jaxpr.invars) == 1
  assert len(program.jaxpr.eqns) == 1


def test_a_program_knows_the_function_it_was_traced_from():
  @jax.custom_jvp
  def mine(x):
    return x + 1

  other = jax.custom_jvp(functools.partial(jnp.add, 1))
  other.defjvps(lambda t, _, x: t)
  mine.defjvps(lambda t, _, x: t)
  for f in (mine, jax.vmap(mine)):
    (eqn,) = equations(f, X)
    assert jaxprs.is_traced_from(jaxprs.inner_program(eqn), mine.fun)
  (eqn,) = equations(other, X)
  assert not jaxprs.is_traced_from(jaxprs.inner_program(eqn), mine.fun)


def test_shardings_of_a_jitted_program_are_kept():
  mesh = Mesh(np.array(jax.devices()), ("data",))
  rows = NamedSharding(mesh, PartitionSpec("data"))
  (plain,) = equations(jax.jit(jnp.sin), X)
  assert jaxprs.compilation_of(plain) == {}
  (eqn,) = equations(jax.jit(jnp.sin, out_shardings=rows), jnp.ones((8, 2)))
  assert jaxprs.compilation_of(eqn) == {"out_shardings": (rows,)}


def test_differentiable_are_real_and_complex_numbers():
  def f(x):
    return x + 1, x > 0, jnp.argmax(x), jax.lax.complex(x, x)

  program, _ = jaxprs.trace(f, (X.astype(jnp.float32),))
  found = [jaxprs.is_differentiable(v) for v in program.jaxpr.outvars]
  assert found == [True, False, False, True]


def test_operands_of_a_scan_are_counted():
  def f(x, w):
    def step(carry, row):
      return (carry[0] * w + row, carry[1] + 1), row * w[0]

    return jax.lax.scan(step, (X[0], 0), x)

  eqn = equations(f, X, X[1])[-1]
  assert eqn.primitive.name == "scan"
  consts, carry = jaxprs.scan_counts(eqn)
  assert carry == 2
  assert len(eqn.invars) - consts - carry == 1
