"""Layer-wise relevance propagation as a JAX transform.

    relevance = x * jax.grad(transform(f, rules))(x)

`transform` walks the program of any JAX function forwards and emits every
operation again, with the same value and the derivative of its rule. The result
is an ordinary JAX function: jit, vmap, grad, scan, remat and sharding compose
with it, inside and outside.

It is strict. An operation on the active path that is not linear and has no
rule raises, with its name, its source line and a remedy; so does a factor held
constant where it would make relevance vanish.
"""

from collections.abc import Callable, Sequence
import functools
from typing import Any

import jax

from gemma_scope.attribution import jaxprs
from gemma_scope.attribution.activity import Activity, Node, fresh, inactive
from gemma_scope.attribution.composites import RuleTable
from gemma_scope.attribution.operations import HANDLERS, Emission
from gemma_scope.attribution.structured import STRUCTURED


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
    f: Any JAX function.
    rules: A rule table, such as `composites.ATTN_LRP`.
    argnums: The attributed arguments; products with the others are products
      with weights.
    has_aux: Whether `f` returns a pair whose second part is not attributed.
    strict: Whether a non-linear operation without a rule raises; if not, it
      keeps its derivative.

  Returns:
    A function of the same arguments with bit-for-bit the same results.

  Raises:
    RuleError: When called, if relevance cannot be passed as the rules say.
  """
  if rules.native and not rules.rules and not rules.scopes:
    return f
  chosen = (argnums,) if isinstance(argnums, int) else tuple(argnums)

  @functools.wraps(f)
  def transformed(*args: Any) -> Any:
    flat = [jax.tree.leaves(arg) for arg in args]
    program, out_tree = jaxprs.trace(f, args)
    active = [i in chosen for i, leaves in enumerate(flat) for _ in leaves]
    values = [leaf for leaves in flat for leaf in leaves]
    variables = program.jaxpr.invars
    nodes = [
      fresh(value) if on and jaxprs.is_differentiable(v) else inactive(value)
      for value, on, v in zip(values, active, variables)
    ]
    emission = Emission(rules, strict, evaluate)
    results = evaluate(emission, program, nodes)
    out = jax.tree.unflatten(out_tree, results)
    for node in jax.tree.leaves(out[0] if has_aux else out):
      emission.require_not_lost(node, "reaches the result")
    return jax.tree.map(lambda node: node.value, out)

  return transformed


def evaluate(
  emission: Emission, program: jaxprs.Program, nodes: Sequence[Node]
) -> list[Node]:
  """Emits a program on nodes and returns its results as nodes."""
  known: dict[Any, Node] = {}
  known.update(zip(program.jaxpr.constvars, map(inactive, program.consts)))
  known.update(zip(program.jaxpr.invars, nodes))

  def read(atom: Any) -> Node:
    return inactive(atom.val) if jaxprs.is_literal(atom) else known[atom]

  for eqn in program.jaxpr.eqns:
    operands = [read(atom) for atom in eqn.invars]
    with jaxprs.place_of(eqn):
      results = emit(emission, eqn, operands)
    for variable, node in zip(eqn.outvars, results):
      real = jaxprs.is_differentiable(variable)
      known[variable] = node if real else inactive(node.value)
  return [read(atom) for atom in program.jaxpr.outvars]


def emit(
  emission: Emission, eqn: jaxprs.Equation, operands: Sequence[Node]
) -> list[Node]:
  """Emits one equation by its rule."""
  cut = not any(map(jaxprs.is_differentiable, eqn.outvars))
  if cut or all(n.activity is Activity.INACTIVE for n in operands):
    values = jaxprs.bind(eqn, [node.value for node in operands])
    return [inactive(value) for value in values]
  name = eqn.primitive.name
  if name in STRUCTURED:
    return STRUCTURED[name](emission, eqn, operands)
  if name in HANDLERS:
    return HANDLERS[name](emission, eqn, operands)
  return emission.unary_or_refuse(eqn, operands)
