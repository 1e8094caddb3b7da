"""Operations that hold a program: jit, remat, custom derivatives, scan, cond.

Their programs are emitted again inside the same structure, so that a scan stays
a scan. A `while` loop with an active value has no reverse-mode derivative and
is refused.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from gemma_scope.attribution import jaxprs
from gemma_scope.attribution.activity import Activity, Node, fresh, inactive
from gemma_scope.attribution.operations import Emission, Handler, RuleError
from gemma_scope.attribution.surrogate import same_value


def call(
  emission: Emission, eqn: jaxprs.Equation, operands: Sequence[Node]
) -> list[Node]:
  """Emits jit and custom derivatives: the program itself, in place."""
  if is_same_value(eqn):
    value, surrogate = operands
    result = same_value(value.value, surrogate.value)
    return [Node(result, surrogate.activity, surrogate.origin)]
  return emission.evaluate(emission, jaxprs.inner_program(eqn), operands)


def is_same_value(eqn: jaxprs.Equation) -> bool:
  """Whether an equation is our own `same_value`, to be kept as it is."""
  inner = eqn.params.get("call_jaxpr")
  if eqn.primitive.name != "custom_jvp_call" or inner is None:
    return False
  return inner.jaxpr.debug_info.func_name == same_value.__name__


def remat(
  emission: Emission, eqn: jaxprs.Equation, operands: Sequence[Node]
) -> list[Node]:
  """Rematerialised programs stay rematerialised."""
  program = jaxprs.inner_program(eqn)
  result = _Remembered(operands)

  def run(*values: Any) -> list[Any]:
    nodes = result.wrap(values)
    return result.unwrap(emission.evaluate(emission, program, nodes))

  wrapped = jax.checkpoint(
    run,
    prevent_cse=eqn.params["prevent_cse"],
    policy=eqn.params["policy"],
  )
  return result.nodes(wrapped(*[node.value for node in operands]))


def scan(
  emission: Emission, eqn: jaxprs.Equation, operands: Sequence[Node]
) -> list[Node]:
  """A scan; a carried value is active if any round makes it so."""
  params = eqn.params
  consts, carry = params["num_consts"], params["num_carry"]
  fixed, init = operands[:consts], list(operands[consts : consts + carry])
  rows = operands[consts + carry :]
  program = params["jaxpr"]
  for node in init:
    emission.require_not_lost(node, "is carried by a scan")
  while True:
    result = _Remembered([*fixed, *init, *rows])

    def body(carried: Any, row: Any, result=result) -> tuple[Any, Any]:
      values = [*[n.value for n in fixed], *carried, *row]
      nodes = result.wrap(values)
      out = result.unwrap(emission.evaluate(emission, program, nodes))
      return out[:carry], out[carry:]

    run = jax.lax.scan(
      body,
      [n.value for n in init],
      [n.value for n in rows],
      length=params["length"],
      reverse=params["reverse"],
      unroll=params["unroll"],
    )
    out = result.nodes([*run[0], *run[1]])
    woken = [i for i in range(carry) if out[i].active and not init[i].active]
    for node in out[:carry]:
      emission.require_not_lost(node, "is carried by a scan")
    if not woken:
      return out
    for i in woken:
      init[i] = fresh(init[i].value)


def cond(
  emission: Emission, eqn: jaxprs.Equation, operands: Sequence[Node]
) -> list[Node]:
  """A choice of programs; the index itself is never active."""
  index, *rest = operands
  results = [_Remembered(rest) for _ in eqn.params["branches"]]

  def branch(program: Any, result: "_Remembered") -> Callable[..., Any]:
    def run(*values: Any) -> list[Any]:
      nodes = result.wrap(values)
      return result.unwrap(emission.evaluate(emission, program, nodes))

    return run

  branches = [branch(p, r) for p, r in zip(eqn.params["branches"], results)]
  values = [node.value for node in rest]
  out = jax.lax.switch(index.value, branches, *values)
  candidates = [r.nodes(out) for r in results]
  chosen = []
  for nodes in zip(*candidates):
    for node in nodes:
      emission.require_not_lost(node, "leaves a branch")
    chosen.append(max(nodes, key=lambda node: node.activity))
  return chosen


def while_loop(
  emission: Emission, eqn: jaxprs.Equation, operands: Sequence[Node]
) -> list[Node]:
  """Refused: a while loop of active values has no reverse-mode derivative."""
  del operands
  raise RuleError(
    "A while loop on the active path cannot pass relevance back: its length "
    "is not known in advance.",
    received=f"while at {jaxprs.source_line(eqn)} under {emission.rules.name}",
    instead="jax.lax.scan, or fori_loop with constant bounds",
  )


class _Remembered:
  """Carries activities around a function that may only see arrays."""

  def __init__(self, operands: Sequence[Node]):
    self._operands = list(operands)
    self._results: list[Node] = []

  def wrap(self, values: Sequence[Any]) -> list[Node]:
    """The operands' activities on the values seen inside."""
    return [
      Node(v, n.activity, n.origin, n.own, n.source)
      for v, n in zip(values, self._operands)
    ]

  def unwrap(self, nodes: Sequence[Node]) -> list[Any]:
    """Remembers the results' activities, gives their values."""
    self._results = list(nodes)
    return [node.value for node in nodes]

  def nodes(self, values: Sequence[Any]) -> list[Node]:
    """The remembered activities on the values seen outside."""
    found = []
    for value, node in zip(values, self._results):
      if node.activity is Activity.INACTIVE:
        found.append(inactive(value))
      else:
        origin = object() if node.active else None
        found.append(Node(value, node.activity, origin, node.own, node.source))
    return found


STRUCTURED: Mapping[str, Handler] = {
  **dict.fromkeys(("jit", "pjit", "closed_call", "core_call"), call),
  **dict.fromkeys(("custom_jvp_call", "custom_vjp_call"), call),
  **dict.fromkeys(("custom_vjp_call_jaxpr", "custom_lin"), call),
  **dict.fromkeys(("remat2", "remat", "checkpoint"), remat),
  "scan": scan,
  "cond": cond,
  "while": while_loop,
}
