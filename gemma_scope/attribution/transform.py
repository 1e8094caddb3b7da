"""Layer-wise relevance propagation as a JAX transform.

    relevance = x * jax.grad(transform(f, rules))(x)

`transform` walks the program of any JAX function forwards and emits every
operation again, with the same value and the derivative of its rule. The result
is an ordinary JAX function: jit, vmap, grad, scan, remat and sharding compose
with it, inside and outside.

It is strict. An operation between the input and the result that is not linear
and has no rule raises, with its name, its source line and a remedy; so does a
factor held constant where it would make relevance vanish.
"""

from collections.abc import Callable, Sequence
import functools
from typing import Any

import jax
import jax.numpy as jnp

from gemma_scope.attribution import jaxprs, paired
from gemma_scope.attribution.activity import (
  Activity,
  Node,
  Source,
  fresh,
  inactive,
)
from gemma_scope.attribution.composites import RuleTable
from gemma_scope.attribution.emission import Emission
from gemma_scope.attribution.operations import HANDLERS, UNIFORM, by_name
from gemma_scope.attribution.structured import STRUCTURED
from gemma_scope.errors import ConfigError


def transform(
  f: Callable[..., Any],
  rules: RuleTable,
  *,
  argnums: int | Sequence[int] = 0,
  has_aux: bool = False,
  strict: bool = True,
) -> Callable[..., Any]:
  """Returns `f` with the derivatives that `rules` give its operations.

  Args:
    f: Any JAX function of positional arguments.
    rules: A rule table, such as `composites.ATTN_LRP`.
    argnums: The attributed arguments, the same as given to `jax.grad`;
      products with the others are products with weights.
    has_aux: Whether `f` returns a pair whose second part is not attributed.
    strict: Whether a non-linear operation without a rule raises; if not, it
      keeps its derivative.

  Returns:
    A function of the same arguments with bit-for-bit the same results. Under
    the empty table of plain gradients it is `f` itself, whatever rule scopes
    there are inside.

  Raises:
    ConfigError: If the table has rules for places of a Gemma.
    RuleError: When called, if relevance cannot be passed as the rules say.
    ConfigError: When called, if an attributed argument is not there.
  """
  if rules.places:
    raise ConfigError(
      "A function has no layers to give other rules.",
      received=f"{rules.name} with rules at {rules.places[0][0]}",
      instead="`relevance` of a model, or rules.within(scope, …) here",
    )
  if rules.plain:
    return f
  emission = Emission(rules, strict, evaluate)

  @functools.wraps(f)
  def transformed(*args: Any) -> Any:
    chosen = _positions(argnums, len(args))
    program, out_tree = jaxprs.trace(f, args)
    flat = [
      (i in chosen, jnp.asarray(leaf))
      for i, arg in enumerate(args)
      for leaf in jax.tree.leaves(arg)
    ]
    nodes = [
      fresh(value) if on and jaxprs.is_differentiable(v) else inactive(value)
      for (on, value), v in zip(flat, program.jaxpr.invars)
    ]
    results = evaluate(emission, program, nodes)
    out = jax.tree.unflatten(out_tree, results)
    for node in jax.tree.leaves(out[0] if has_aux else out):
      _raise_fault(emission, node)
    return jax.tree.map(lambda node: node.value, out)

  return transformed


def evaluate(
  emission: Emission, program: jaxprs.Program, nodes: Sequence[Node]
) -> list[Node]:
  """Emits a program on nodes and returns its results as nodes."""
  known: dict[Any, Node] = {}
  for variable, value in zip(program.jaxpr.constvars, program.consts):
    known[variable] = inactive(value, jaxprs.number(value))
  known.update(zip(program.jaxpr.invars, nodes))

  def read(atom: Any) -> Node:
    if jaxprs.is_literal(atom):
      return inactive(atom.val, jaxprs.number(atom.val))
    return known[atom]

  for eqn in program.jaxpr.eqns:
    operands = [read(atom) for atom in eqn.invars]
    with jaxprs.place_of(eqn):
      results = emit(emission, eqn, operands)
    known.update(zip(eqn.outvars, results))
  return [read(atom) for atom in program.jaxpr.outvars]


def emit(
  emission: Emission, eqn: jaxprs.Equation, operands: Sequence[Node]
) -> list[Node]:
  """Emits one equation by its rule."""
  name = eqn.primitive.name
  if all(node.activity is Activity.INACTIVE for node in operands):
    values = jaxprs.bind(eqn, [node.value for node in operands])
    kept = operands[0].constant if name in UNIFORM else None
    return [inactive(value, kept) for value in values]
  if not any(map(jaxprs.is_differentiable, eqn.outvars)):
    values = jaxprs.bind(eqn, [node.value for node in operands])
    return [_choice(emission, eqn, operands, value) for value in values]
  handler = STRUCTURED.get(name) or paired.handler_of(emission, eqn, operands)
  handler = handler or HANDLERS.get(name) or by_name
  line = jaxprs.source_line(eqn)
  return [
    node.located(line)
    if jaxprs.is_differentiable(variable) or not node.active
    else _choice(emission, eqn, operands, node.value)
    for variable, node in zip(eqn.outvars, handler(emission, eqn, operands))
  ]


def _choice(
  emission: Emission,
  eqn: jaxprs.Equation,
  operands: Sequence[Node],
  value: Any,
) -> Node:
  """An index or a condition that depends on the input: no relevance passes."""
  if emission.lenient:
    return inactive(value)
  made = [n.source for n in operands if n.source and n.source.choice]
  name = str(eqn.params.get("name", eqn.primitive.name))
  source = Source(name, jaxprs.source_line(eqn), choice=True)
  return Node(value, Activity.FROZEN, source=made[0] if made else source)


def _raise_fault(emission: Emission, node: Node) -> None:
  """Raises if relevance of a result does not reach the input as it should."""
  if not jnp.issubdtype(jnp.result_type(node.value), jnp.inexact):
    return
  fault = node.fault or emission.lost(node, "reaches the result")
  if fault is not None:
    raise emission.error(fault)


def _positions(argnums: int | Sequence[int], count: int) -> set[int]:
  """The attributed arguments, counted from the front."""
  given = (argnums,) if isinstance(argnums, int) else tuple(argnums)
  if any(not -count <= i < count for i in given) or not given:
    raise ConfigError(
      "An attributed argument is not among the function's arguments.",
      received=f"argnums={argnums!r} and {count} arguments",
      instead="positions from 0, the same as given to jax.grad",
    )
  return {i % count for i in given}
