"""What happens to relevance at each JAX operation, before any rule is asked.

Linear operations keep their derivative. Products, quotients, powers and clips
are sorted by which operands are active; everything else needs a rule by name.
What is constant in an operation (a bias, a mask's -inf) keeps its own share.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses

import jax

from gemma_scope.attribution import composites, jaxprs
from gemma_scope.attribution import rules as rule_lib
from gemma_scope.attribution.activity import (
  Activity,
  Fault,
  Node,
  Source,
  activated,
  merged,
)
from gemma_scope.attribution.emission import FUNCTIONS, Emission

Handler = Callable[[Emission, jaxprs.Equation, Sequence[Node]], list[Node]]


def linear(
  emission: Emission, eqn: jaxprs.Equation, operands: Sequence[Node]
) -> list[Node]:
  """An operation that is linear in all its active operands together."""
  values = jaxprs.bind(eqn, [node.value for node in operands])
  keep = eqn.primitive.name in _ELEMENTWISE
  real = _differentiable(eqn, operands)
  if not any(node.active for node in real):
    return [merged(value, operands, elementwise=keep) for value in values]
  fault = _first_lost(emission, real, "is combined with an active value")
  total = _total(eqn, [node for node in real if node.active])
  return [
    dataclasses.replace(
      activated(v, real, elementwise=keep).blamed(fault), total=total
    )
    for v in values
  ]


def passed(
  emission: Emission, eqn: jaxprs.Equation, operands: Sequence[Node]
) -> list[Node]:
  """Each result is its operand, as another array."""
  del emission
  values = jaxprs.bind(eqn, [node.value for node in operands])
  return [node.on(value) for node, value in zip(operands, values)]


def product(
  emission: Emission, eqn: jaxprs.Equation, operands: Sequence[Node]
) -> list[Node]:
  """`mul`, `dot_general` and convolutions of two operands."""
  a, b = operands
  (y,) = jaxprs.bind(eqn, [a.value, b.value])
  elementwise = eqn.primitive.name == "mul"
  if a.active and b.active:
    rule, fault = emission.rule(composites.PRODUCT), None
    if isinstance(rule, rule_lib.Half):
      y = rule.share(y)
    elif not isinstance(rule, rule_lib.Native):
      fault = emission.uncovered(eqn, composites.PRODUCT)
    return [activated(y, operands, elementwise=elementwise).blamed(fault)]
  for factor, other in ((a, b), (b, a)):
    if factor.frozen and other.active:
      fault = factor.fault or _gating(emission, factor, other)
      return [activated(y, [other], elementwise=elementwise).blamed(fault)]
  if a.frozen or b.frozen:
    held = merged(y, operands, elementwise=elementwise)
    alone = not elementwise and not (a.frozen and b.frozen)
    lost = emission.lost(held, "enters a matrix product") if alone else None
    return [held.blamed(lost)]
  if elementwise:
    return [activated(y, operands, elementwise=True)]
  return [_weights(emission, eqn, operands, y)]


def quotient(
  emission: Emission, eqn: jaxprs.Equation, operands: Sequence[Node]
) -> list[Node]:
  """`div`: linear in the numerator, non-linear in an active denominator.

  An exp that its own sum divides is a softmax, and no longer at fault.
  """
  a, b = operands
  if b.active and a.fault and a.fault.awaits and b.total == a.origin:
    (y,) = jaxprs.bind(eqn, [a.value, b.value])
    whole = activated(y, operands)
    return [dataclasses.replace(whole, fault=a.fault.before)]
  if b.active:
    return [_divided(emission, eqn, a, b)]
  (y,) = jaxprs.bind(eqn, [a.value, b.value])
  if not a.active:
    return [merged(y, operands, elementwise=True)]
  fault = b.fault or _gating(emission, b, a)
  return [activated(y, [a], elementwise=True).blamed(fault)]


def power(
  emission: Emission, eqn: jaxprs.Equation, operands: Sequence[Node]
) -> list[Node]:
  """`integer_pow` and `square`: a product of n equal factors."""
  (x,) = operands
  factors = int(eqn.params.get("y", 2))
  rule = emission.rule(composites.PRODUCT)
  if not x.active or factors <= 0:
    return by_name(emission, eqn, operands)
  (y,) = jaxprs.bind(eqn, [x.value])
  fault = None
  if isinstance(rule, rule_lib.Half):
    y = rule.share(y, factors)
  elif not isinstance(rule, rule_lib.Native):
    fault = emission.uncovered(eqn, composites.PRODUCT)
  return [activated(y, operands, elementwise=True).blamed(fault)]


def stop_gradient(
  emission: Emission, eqn: jaxprs.Equation, operands: Sequence[Node]
) -> list[Node]:
  """What the function itself holds constant stays so."""
  del emission
  (value,) = jaxprs.bind(eqn, [operands[0].value])
  return [Node(value)]


def piecewise(
  emission: Emission, eqn: jaxprs.Equation, operands: Sequence[Node]
) -> list[Node]:
  """`max` and `min`: linear on each side, if the table allows them.

  Where a constant may win that is neither zero (as in relu) nor the neutral
  element, the operation is a clip.
  """
  name = eqn.primitive.name
  if not any(node.active for node in operands):
    return by_name(emission, eqn, operands)
  if not isinstance(emission.rule(name), rule_lib.Native):
    return by_name(emission, eqn, operands)
  neutral = float("-inf") if name.endswith("max") else float("inf")
  if _holds_constant(operands, (0.0, neutral)):
    return by_name(emission, eqn, operands, composites.CLIP)
  return linear(emission, eqn, operands)


def select(
  emission: Emission, eqn: jaxprs.Equation, operands: Sequence[Node]
) -> list[Node]:
  """`select_n`: linear; a clip if the input chooses a constant for itself.

  Not a clip are zero (as in relu) and infinity (as in a mask of scores).
  """
  which, *cases = operands
  active = any(node.active for node in cases)
  harmless = (0.0, float("inf"), float("-inf"))
  if which.frozen and active and _holds_constant(cases, harmless):
    return by_name(emission, eqn, operands, composites.CLIP)
  return linear(emission, eqn, operands)


def clamp(
  emission: Emission, eqn: jaxprs.Equation, operands: Sequence[Node]
) -> list[Node]:
  """`clamp`: a clip."""
  return by_name(emission, eqn, operands, composites.CLIP)


def by_name(
  emission: Emission,
  eqn: jaxprs.Equation,
  operands: Sequence[Node],
  kind: str | None = None,
) -> list[Node]:
  """Any other operation: by the rule of its name, or of another kind."""
  name = kind or eqn.primitive.name
  values = jaxprs.bind(eqn, [node.value for node in operands])
  elementwise = name in FUNCTIONS
  rule = emission.rule(name)
  real = _differentiable(eqn, operands)
  active = [node for node in real if node.active]
  single = len(values) == 1 and elementwise
  if isinstance(rule, rule_lib.Stop) and single and len(active) == 1:
    own = active[0].origin if rule.own else None
    return [_stopped(eqn, name, values[0], own)]
  if not active and isinstance(rule, rule_lib.Stop) and not rule.own:
    return [_stopped(eqn, name, value, None) for value in values]
  if not active:
    return [merged(v, operands, elementwise=elementwise) for v in values]
  fault = _first_lost(emission, real, "meets an active value")
  if isinstance(rule, rule_lib.Softmax) and name == "exp":
    return [_exponential(emission, eqn, values[0], active[0])]
  if isinstance(rule, rule_lib.UnaryRule) and single and len(active) == 1:
    values = [rule.unary(active[0].value, values[0])]
  elif not isinstance(rule, rule_lib.Native):
    fault = fault or emission.uncovered(eqn, name)
  return [
    activated(v, active, elementwise=elementwise).blamed(fault) for v in values
  ]


def _divided(
  emission: Emission, eqn: jaxprs.Equation, a: Node, b: Node
) -> Node:
  """A quotient whose denominator is active."""
  rule = emission.rule(composites.QUOTIENT)
  fault = emission.lost(a, "is divided by an active value")
  if isinstance(rule, rule_lib.Stop):
    held = jax.lax.stop_gradient(b.value)
    (y,) = jaxprs.bind(eqn, [a.value, held])
    if a.active:
      return activated(y, [a], elementwise=True)
    return _stopped(eqn, composites.QUOTIENT, y, None)
  (y,) = jaxprs.bind(eqn, [a.value, b.value])
  if isinstance(rule, rule_lib.UnaryRule) and not a.active:
    y = rule.unary(b.value, y)
  elif not isinstance(rule, rule_lib.Native):
    fault = fault or emission.uncovered(eqn, composites.QUOTIENT)
  return activated(y, [a, b]).blamed(fault)


def _weights(
  emission: Emission,
  eqn: jaxprs.Equation,
  operands: Sequence[Node],
  y: jax.Array,
) -> Node:
  """A product of one active operand with constants."""
  first = operands[0].active
  x, w = operands if first else reversed(operands)
  rule = emission.rule(composites.WEIGHTS)

  def again(x: jax.Array, w: jax.Array) -> jax.Array:
    return jaxprs.bind(eqn, [x, w] if first else [w, x])[0]

  if rule is None or isinstance(rule, rule_lib.Native):
    return activated(y, operands)
  if isinstance(rule, rule_lib.ProductRule):
    return activated(rule.product(again, x.value, w.value, y), operands)
  fault = emission.uncovered(eqn, composites.WEIGHTS)
  return activated(y, operands).blamed(fault)


def _first_lost(
  emission: Emission, nodes: Sequence[Node], how: str
) -> Fault | None:
  """The fault of the first frozen value among nodes, its own if it has one."""
  faults = (node.fault or emission.lost(node, how) for node in nodes)
  return next(filter(None, faults), None)


def _gating(emission: Emission, factor: Node, other: Node) -> Fault | None:
  """The fault of a factor that may multiply its own input and meets another."""
  if factor.own is None or factor.own == other.origin:
    return None
  return emission.lost(factor, "gates another value than its own input")


def _stopped(
  eqn: jaxprs.Equation, kind: str, value: jax.Array, own: object
) -> Node:
  return Node(
    jax.lax.stop_gradient(value),
    Activity.FROZEN,
    own=own,
    source=Source(kind, jaxprs.source_line(eqn)),
  )


def _exponential(
  emission: Emission, eqn: jaxprs.Equation, value: jax.Array, x: Node
) -> Node:
  """An exp, at fault until its own sum divides it."""
  if emission.lenient:
    return activated(value, [x])
  fault = dataclasses.replace(
    emission.uncovered(eqn, "exp"),
    what="The rule Softmax is for an `exp` that its own sum divides, and this "
    "one is used in another way.",
    before=x.fault,
    awaits=True,
  )
  return dataclasses.replace(activated(value, [x]), fault=fault)


def _total(eqn: jaxprs.Equation, active: Sequence[Node]) -> object:
  """The origin of what a result is a sum of, other places added or not."""
  if len(active) != 1:
    return None
  if eqn.primitive.name in _SUMS:
    return active[0].total or active[0].origin
  return active[0].total


def _holds_constant(nodes: Sequence[Node], harmless: Sequence[float]) -> bool:
  """Whether an inactive value among nodes is no harmless number and no NaN."""
  inactive = [n for n in nodes if n.activity is Activity.INACTIVE]
  return any(
    n.constant is None
    or (n.constant == n.constant and n.constant not in harmless)
    for n in inactive
  )


def _differentiable(
  eqn: jaxprs.Equation, operands: Sequence[Node]
) -> list[Node]:
  """The operands that hold real numbers: no indices, no conditions."""
  return [
    node
    for node, atom in zip(operands, eqn.invars)
    if jaxprs.is_differentiable(atom)
  ]


_LINEAR = (
  *("add", "add_any", "sub", "neg", "transpose", "reshape", "squeeze"),
  *("broadcast_in_dim", "expand_dims", "slice", "dynamic_slice", "gather"),
  *("rev", "concatenate", "pad", "split", "tile", "dynamic_update_slice"),
  *("stack", "unstack"),
  *("scatter", "scatter-add", "scatter-sub", "reduce_sum", "cumsum", "real"),
  *("imag", "complex", "conj", "reduce_window_sum", "psum", "psum_invariant"),
  *("all_gather", "all_gather_invariant", "reduce_scatter", "ppermute"),
  *("all_to_all", "unreduced_psum"),
)
_PASSED = (
  *("copy", "copy_p", "convert_element_type", "reduce_precision", "name"),
  *("optimization_barrier", "device_put", "sharding_constraint", "pvary"),
  *("mesh_cast", "reshard"),
)
_ELEMENTWISE = frozenset(
  ("add", "add_any", "sub", "neg", "select_n", "max", "min")
)
_SUMS = frozenset(("reduce_sum", "psum", "psum_invariant"))
# What keeps a number that is the same everywhere.
UNIFORM = frozenset(
  ("broadcast_in_dim", "convert_element_type", "reshape", "squeeze", "pvary")
)

HANDLERS: Mapping[str, Handler] = {
  **dict.fromkeys(_LINEAR, linear),
  **dict.fromkeys(_PASSED, passed),
  **dict.fromkeys(("mul", "dot_general", "conv_general_dilated"), product),
  **dict.fromkeys(("integer_pow", "square"), power),
  **dict.fromkeys(("max", "min", "reduce_max", "reduce_min"), piecewise),
  "select_n": select,
  "clamp": clamp,
  "div": quotient,
  "stop_gradient": stop_gradient,
}
