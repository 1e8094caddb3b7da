"""Operations that hold a program: jit, remat, custom derivatives, scan, cond.

Their programs are emitted again inside the same structure, so that a scan stays
a scan. Custom derivatives are left out: the rules decide. A `while` loop with
an active value has no reverse-mode derivative and is a fault.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
from typing import Any

import jax

from gemma_scope.attribution import jaxprs
from gemma_scope.attribution import rules as rule_lib
from gemma_scope.attribution.activity import (
  Activity,
  Fault,
  Node,
  activated,
  denumbered,
  inactive,
  merged,
  numbered,
  renamed,
)
from gemma_scope.attribution.emission import Emission
from gemma_scope.attribution.operations import Handler
from gemma_scope.attribution.surrogate import same_value


def custom(
  emission: Emission, eqn: jaxprs.Equation, operands: Sequence[Node]
) -> list[Node]:
  """A function with a derivative of its own: by the rules, in place.

  `same_value` is a rule that the function itself brings, and is kept. A table
  that keeps derivatives keeps custom ones where it has no rule inside.
  """
  program = jaxprs.inner_program(eqn)
  if jaxprs.is_traced_from(program, same_value.fun):
    value, passing = operands
    result = same_value(value.value, passing.value)
    return [dataclasses.replace(passing, value=result, constant=None)]
  ruled = any(map(emission.find, jaxprs.primitives(program)))
  active = any(node.active for node in operands)
  if emission.lenient and active and not ruled:
    values = jaxprs.bind(eqn, [node.value for node in operands])
    return [activated(value, operands) for value in values]
  return emission.evaluate(emission, program, operands)


def call(
  emission: Emission, eqn: jaxprs.Equation, operands: Sequence[Node]
) -> list[Node]:
  """A program that is part of the one around it: in place."""
  return emission.evaluate(emission, jaxprs.inner_program(eqn), operands)


def jit(
  emission: Emission, eqn: jaxprs.Equation, operands: Sequence[Node]
) -> list[Node]:
  """A jitted program is emitted once for all equal uses, jitted again."""
  nodes, origins = numbered(operands)
  options = tuple(sorted(jaxprs.compilation_of(eqn).items()))
  program = jaxprs.inner_program(eqn)
  name = str(eqn.params.get("name", "jit"))
  unit = _unit(emission.inside(), program, nodes, name, options)
  return denumbered(unit(*[node.value for node in operands]), origins)


def remat(
  emission: Emission, eqn: jaxprs.Equation, operands: Sequence[Node]
) -> list[Node]:
  """Rematerialised programs stay rematerialised."""
  inner = _Inner(emission.inside(), jaxprs.inner_program(eqn), operands)
  run = jax.checkpoint(
    inner, prevent_cse=eqn.params["prevent_cse"], policy=eqn.params["policy"]
  )
  return inner.nodes(run(*[node.value for node in operands]))


def shard_map(
  emission: Emission, eqn: jaxprs.Equation, operands: Sequence[Node]
) -> list[Node]:
  """A program for each part of a mesh stays one.

  Rules see what one part sees: of a matrix product whose sum a later `psum`
  completes, each part is a product of its own.
  """
  inner = _Inner(emission.inside(), jaxprs.inner_program(eqn), operands)
  p = eqn.params
  run = jax.shard_map(
    inner,
    mesh=p["mesh"],
    in_specs=p["in_specs"],
    out_specs=list(p["out_specs"]),
    check_vma=p["check_vma"],
    axis_names=p["newly_manual_axes"],
  )
  return inner.nodes(run(*[node.value for node in operands]))


def scan(
  emission: Emission, eqn: jaxprs.Equation, operands: Sequence[Node]
) -> list[Node]:
  """A scan; a carried value is what any round makes of it."""
  p, around = eqn.params, emission.inside()
  program = jaxprs.inner_program(eqn)
  first, count = jaxprs.scan_counts(eqn)
  last = first + count
  fixed, rows = operands[:first], renamed(operands[last:])
  values = [node.value for node in operands]

  def rounds(carried: Sequence[Node]) -> tuple[_Inner, Callable[..., Any]]:
    inner = _Inner(around, program, [*fixed, *carried, *rows])

    def body(carry: Any, row: Any) -> tuple[Any, Any]:
      out = inner(*values[:first], *carry, *row)
      return out[: len(carry)], out[len(carry) :]

    options = {name: p[name] for name in ("length", "reverse", "unroll")}
    return inner, functools.partial(jax.lax.scan, body, **options)

  start = carried = [_apart(node) for node in operands[first:last]]
  while True:
    inner, run = rounds(carried)
    jax.eval_shape(run, values[first:last], values[last:])
    pairs = zip(carried, inner.results)
    after = [_joined(emission, pair, "is carried by a scan") for pair in pairs]
    if list(map(_kind, after)) != list(map(_kind, carried)):
      # What was at fault may not be, now that more is known to be active.
      carried = list(map(_with_fault_of, after, start))
    elif [n.fault for n in after] != [n.fault for n in carried]:
      carried = after
    else:
      break
  carry, stacked = run(values[first:last], values[last:])
  out = renamed(inner.nodes([*carry, *stacked]))
  return [*map(Node.on, after, carry), *out[len(carry) :]]


def cond(
  emission: Emission, eqn: jaxprs.Equation, operands: Sequence[Node]
) -> list[Node]:
  """A choice of programs; a result is what any branch makes of it."""
  index, *rest = operands
  around = emission.inside()
  branches = [_Inner(around, p, rest) for p in eqn.params["branches"]]
  out = jax.lax.switch(index.value, branches, *[node.value for node in rest])
  results = []
  for value, *nodes in zip(out, *[b.results for b in branches]):
    node = _joined(emission, nodes, "leaves a branch")
    results.append(_chosen(emission, eqn, index, nodes, node).on(value))
  return results


def while_loop(
  emission: Emission, eqn: jaxprs.Equation, operands: Sequence[Node]
) -> list[Node]:
  """A fault: a while loop of active values cannot be run backwards."""
  del emission
  held = [jax.lax.stop_gradient(node.value) for node in operands]
  values = jaxprs.bind(eqn, held)
  if not any(node.active for node in operands):
    return [merged(value, operands) for value in values]
  fault = Fault(
    "A while loop on the active path cannot pass relevance back: its length "
    "is not known in advance.",
    kind="while",
    line=jaxprs.source_line(eqn),
    instead="jax.lax.scan, or fori_loop with constant bounds",
  )
  return [activated(value, operands).blamed(fault) for value in values]


class _Inner:
  """A program as a function of arrays, and the nodes of its results.

  It takes the emission of its inside. The results are known once it has been
  traced.
  """

  def __init__(
    self, emission: Emission, program: jaxprs.Program, nodes: Sequence[Node]
  ):
    self._emission = emission
    self._program = program
    self._nodes = list(nodes)
    self.results: list[Node] = []

  def __call__(self, *values: Any) -> list[Any]:
    nodes = list(map(Node.on, self._nodes, values))
    with jaxprs.without_scope():  # jit starts anew or not, scan always
      out = self._emission.evaluate(self._emission, self._program, nodes)
    self.results = [node.on(None) for node in out]
    return [node.value for node in out]

  def nodes(self, values: Sequence[Any]) -> list[Node]:
    """The results' nodes on the values seen outside."""
    return list(map(Node.on, self.results, values))


@functools.lru_cache(maxsize=256)
def _unit(
  emission: Emission,
  program: jaxprs.Program,
  nodes: tuple[Node, ...],
  name: str,
  options: tuple[tuple[str, Any], ...],
) -> Callable[..., list[Node]]:
  """A jitted program under rules; the same for equal arguments."""
  inner = _Inner(emission, program, nodes)

  def run(*values: Any) -> list[Any]:
    return inner(*values)

  run.__name__ = run.__qualname__ = name
  compiled = jax.jit(run, **dict(options))
  return lambda *values: inner.nodes(compiled(*values))


def _apart(node: Node) -> Node:
  """A value that changes from round to round: its origin, and no constant."""
  own = None if node.own is None else object()
  origin = object() if node.active else None
  return Node(
    node.value, node.activity, origin, own, node.source, fault=node.fault
  )


def _kind(node: Node) -> tuple[Activity, bool]:
  return node.activity, node.own is None


def _with_fault_of(node: Node, other: Node) -> Node:
  return dataclasses.replace(node, fault=other.fault)


def _joined(emission: Emission, nodes: Sequence[Node], how: str) -> Node:
  """What is one of several nodes, nobody knows which."""
  frozen = [node for node in nodes if node.frozen]
  if any(node.active for node in nodes):
    fault = emission.lost(frozen[0], how) if frozen else None
    return activated(None, nodes).blamed(fault)
  return merged(None, frozen) if frozen else inactive(None)


def _chosen(
  emission: Emission,
  eqn: jaxprs.Equation,
  index: Node,
  nodes: Sequence[Node],
  joined: Node,
) -> Node:
  """A joined node where the input itself chose among the nodes."""
  if not index.frozen:
    return joined
  if not joined.active:
    return merged(None, [index, joined])
  constants = [n for n in nodes if n.activity is Activity.INACTIVE]
  native = isinstance(emission.rule("cond"), rule_lib.Native)
  if native or all(node.constant == 0 for node in constants):
    return joined
  return joined.blamed(emission.uncovered(eqn, "cond"))


STRUCTURED: Mapping[str, Handler] = {
  **dict.fromkeys(("jit", "pjit"), jit),
  **dict.fromkeys(("closed_call", "core_call", "composite"), call),
  **dict.fromkeys(("custom_jvp_call", "custom_vjp_call"), custom),
  **dict.fromkeys(("remat2", "remat", "checkpoint"), remat),
  "scan": scan,
  "cond": cond,
  "while": while_loop,
  "shard_map": shard_map,
}
