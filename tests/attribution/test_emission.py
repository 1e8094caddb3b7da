"""Rules where a program stands, and errors that name the remedy."""

import jax
import jax.numpy as jnp
import pytest

from gemma_scope import errors
from gemma_scope.attribution import jaxprs, lrp
from gemma_scope.attribution.activity import Activity, Node, Source
from gemma_scope.attribution.emission import Emission

TABLE = lrp.RuleTable("TABLE", {"exp": lrp.Stop(), "tanh": lrp.Half()})


def emission(rules=TABLE, strict=True, scope=""):
  return Emission(rules, strict, lambda *_: [], scope)


def equation(f):
  program, _ = jaxprs.trace(f, (jnp.ones(3),))
  return program.jaxpr.eqns[0]


def test_scopes_reach_into_programs_that_are_traced_apart():
  table = TABLE.within("block/*", {"exp": lrp.Identity()})
  outside = emission(table)
  assert outside.rule("exp") == lrp.Stop()
  with jax.named_scope("block"):
    assert outside.rule("exp") == lrp.Stop()
    inside = outside.inside()
    with jax.named_scope("mlp"):
      assert outside.path() == "block/mlp"
      assert outside.rule("exp") == lrp.Identity()
  assert inside.scope == "block"
  with jax.named_scope("mlp"):
    assert inside.path() == "block/mlp"
    assert inside.rule("exp") == lrp.Identity()


def test_what_no_rule_covers_is_native_only_by_request():
  assert emission().rule("sin") is None
  assert emission(strict=False).rule("sin") == lrp.Native()
  assert emission(lrp.GRADIENT).rule("sin") == lrp.Native()
  assert emission(strict=False).rule("exp") == lrp.Stop()
  assert [e.lenient for e in (emission(), emission(strict=False))] == [0, 1]


@pytest.mark.parametrize(
  ("f", "kind", "what", "instead"),
  [
    (jnp.sin, "sin", "passes the operation `sin`", '"sin": lrp.Identity'),
    (
      lambda x: jax.lax.cummax(x),
      "cummax",
      "the operation `cummax`",
      '"cummax": lrp.Native',
    ),
    (
      lambda x: jax.lax.div(1.0, x[0]),
      "quotient",
      "denominator is active",
      '"quotient": lrp.Stop',
    ),
    (lambda x: x * x, "product", "product of active", '"product": lrp.Half'),
    (
      lambda x: jax.lax.clamp(0.0, x, 1.0),
      "clip",
      "takes the place of an active value",
      '"clip": lrp.Identity',
    ),
    (lambda x: jax.lax.reduce_prod(x, (0,)), "reduce_prod", "prod", "made of"),
    (jnp.tanh, "tanh", "The rule Half does not apply", '"tanh": lrp.Identity'),
  ],
)
def test_faults_name_the_operation_its_line_and_a_remedy(
  f, kind, what, instead
):
  e, eqn = emission(), equation(f)
  fault = e.uncovered(eqn, kind)
  assert what in fault.what
  assert "test_emission.py" in fault.line or not fault.line
  assert instead in fault.instead
  assert "strict=False" in fault.instead
  error = e.error(fault)
  assert isinstance(error, lrp.RuleError)
  assert isinstance(error, errors.GemmaScopeError)
  assert f"{eqn.primitive.name} at {fault.line} under TABLE" in str(error)


def test_only_frozen_values_are_lost():
  e = emission()
  held = Node(1.0, Activity.FROZEN, source=Source("exp", "model.py:3"))
  fault = e.lost(held, "reaches the result")
  assert "constant reaches the result" in fault.what
  assert '{"exp": lrp.Identity()}' in fault.instead
  chosen = Node(1.0, Activity.FROZEN, source=Source("gt", "model.py:3", True))
  fault = e.lost(chosen, "reaches the result")
  assert "a choice that depends on the input reaches" in fault.what
  assert "jax.lax.stop_gradient" in fault.instead
  assert e.lost(Node(1.0), "") is None
  assert e.lost(Node(1.0, Activity.ACTIVE), "") is None
