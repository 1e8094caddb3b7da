"""What happens to relevance at each JAX operation, before any rule is asked.

Linear operations keep their derivative. Products, quotients and powers are
sorted by which operands are active; everything else needs a rule by name.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any

import jax

from gemma_scope.attribution import composites, jaxprs
from gemma_scope.attribution import rules as rule_lib
from gemma_scope.attribution.activity import Activity, Node, inactive
from gemma_scope.errors import GemmaScopeError


class RuleError(GemmaScopeError):
  """Relevance cannot be passed through an operation as the rules say."""


@dataclasses.dataclass(frozen=True)
class Emission:
  """How a program is being emitted again.

  Attributes:
    rules: The rule table.
    strict: Whether an operation without a rule raises.
    evaluate: Emits a whole program, for operations that hold one.
  """

  rules: composites.RuleTable
  strict: bool
  evaluate: Callable[["Emission", Any, Sequence[Node]], list[Node]]

  def rule(self, kind: str) -> rule_lib.Rule | None:
    """The rule for a kind of operation where the program now stands."""
    found = self.rules.find(kind, jaxprs.current_scope())
    if found is None and (self.rules.native or not self.strict):
      return rule_lib.Native()
    return found

  def require_not_lost(self, node: Node, how: str) -> None:
    """Raises if a factor held constant would make relevance vanish."""
    if not node.frozen:
      return
    raise RuleError(
      "Relevance is lost: a value that a rule holds constant "
      f"{how}, where it multiplies nothing active.",
      received=f"{node.source} under {self.rules.name}",
      instead="the identity rule for it: "
      f'rules.replace("mine", {node.source.split()[0]}=lrp.Identity())',
    )

  def unary_or_refuse(
    self, eqn: jaxprs.Equation, operands: Sequence[Node]
  ) -> list[Node]:
    """Emits a function of one active operand by the rule of its name."""
    name = eqn.primitive.name
    rule = self.rule(name)
    values = jaxprs.bind(eqn, [node.value for node in operands])
    if all(not node.active for node in operands):
      return [_merged(value, operands) for value in values]
    if isinstance(rule, rule_lib.Native):
      return [_active(value, operands) for value in values]
    only = len(operands) == 1 and len(values) == 1
    if isinstance(rule, rule_lib.Stop) and only:
      return [_stopped(eqn, values[0], operands[0], rule)]
    if isinstance(rule, rule_lib.Identity) and only:
      value = rule.unary(operands[0].value, values[0])
      return [_active(value, operands)]
    raise RuleError(
      f"No rule says how relevance passes the operation `{name}`.",
      received=f"{name} at {jaxprs.source_line(eqn)} under {self.rules.name}",
      instead=f'rules.replace("mine", {name}=lrp.Identity()), or strict=False '
      "to keep its gradient",
    )


Handler = Callable[[Emission, jaxprs.Equation, Sequence[Node]], list[Node]]


def linear(
  emission: Emission, eqn: jaxprs.Equation, operands: Sequence[Node]
) -> list[Node]:
  """An operation that is linear in all its active operands together."""
  values = jaxprs.bind(eqn, [node.value for node in operands])
  if not any(node.active for node in operands):
    return [_merged(value, operands) for value in values]
  for node in operands:
    emission.require_not_lost(node, "is combined with an active value")
  keep = eqn.primitive.name in _ELEMENTWISE
  return [_active(value, operands, keep) for value in values]


def product(
  emission: Emission, eqn: jaxprs.Equation, operands: Sequence[Node]
) -> list[Node]:
  """`mul`, `dot_general` and convolutions of two operands."""
  a, b = operands
  (y,) = jaxprs.bind(eqn, [a.value, b.value])
  elementwise = eqn.primitive.name == "mul"
  if a.active and b.active:
    rule = emission.rule(composites.PRODUCT)
    if isinstance(rule, rule_lib.Half):
      y = rule.share(y)
    elif not isinstance(rule, rule_lib.Native):
      return emission.unary_or_refuse(eqn, operands)
    return [_active(y, operands, elementwise)]
  for factor, other in ((a, b), (b, a)):
    if factor.frozen and other.active:
      _require_own(emission, factor, other)
      return [_active(y, [other], elementwise)]
    if factor.frozen and not elementwise and not other.frozen:
      emission.require_not_lost(factor, "enters a matrix product")
  if a.frozen or b.frozen:
    return [_merged(y, operands)]
  if elementwise:
    return [_active(y, operands, True)]
  return [_weights(emission, eqn, operands, y)]


def quotient(
  emission: Emission, eqn: jaxprs.Equation, operands: Sequence[Node]
) -> list[Node]:
  """`div`: linear in the numerator, non-linear in an active denominator."""
  a, b = operands
  (y,) = jaxprs.bind(eqn, [a.value, b.value])
  if b.active:
    rule = emission.rule(composites.QUOTIENT)
    if not isinstance(rule, rule_lib.Native):
      return emission.unary_or_refuse(eqn, operands)
    emission.require_not_lost(a, "is divided by an active value")
    return [_active(y, operands)]
  if a.active:
    return [_active(y, [a], True)]
  return [_merged(y, operands)]


def power(
  emission: Emission, eqn: jaxprs.Equation, operands: Sequence[Node]
) -> list[Node]:
  """`integer_pow` and `square`: a product of n equal factors."""
  (x,) = operands
  (y,) = jaxprs.bind(eqn, [x.value])
  if not x.active:
    return [_merged(y, operands)]
  rule = emission.rule(composites.PRODUCT)
  factors = int(eqn.params.get("y", 2))
  if isinstance(rule, rule_lib.Half) and factors > 0:
    y = rule.share(y, factors)
  elif not isinstance(rule, rule_lib.Native):
    return emission.unary_or_refuse(eqn, operands)
  return [_active(y, operands, True)]


def stop_gradient(
  emission: Emission, eqn: jaxprs.Equation, operands: Sequence[Node]
) -> list[Node]:
  """What the function itself holds constant stays so."""
  del emission
  (value,) = jaxprs.bind(eqn, [operands[0].value])
  return [inactive(value)]


def piecewise(
  emission: Emission, eqn: jaxprs.Equation, operands: Sequence[Node]
) -> list[Node]:
  """`max` and `min`: linear on each side, if the table allows them."""
  if isinstance(emission.rule(eqn.primitive.name), rule_lib.Native):
    return linear(emission, eqn, operands)
  return emission.unary_or_refuse(eqn, operands)


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

  if isinstance(rule, rule_lib.ProductRule) and not isinstance(
    rule, rule_lib.Native
  ):
    y = rule.product(again, x.value, w.value, y)
  elif rule is not None and not isinstance(rule, rule_lib.Native):
    emission.unary_or_refuse(eqn, operands)
  return _active(y, operands)


def _require_own(emission: Emission, factor: Node, other: Node) -> None:
  """Raises if a factor may multiply its own input only and this is another."""
  if factor.own is None or factor.own is other.origin:
    return
  emission.require_not_lost(factor, "gates another value than its own input")


def _stopped(
  eqn: jaxprs.Equation, value: jax.Array, x: Node, rule: rule_lib.Stop
) -> Node:
  return Node(
    jax.lax.stop_gradient(value),
    Activity.FROZEN,
    own=x.origin if rule.own else None,
    source=f"{eqn.primitive.name} at {jaxprs.source_line(eqn)}",
  )


def _active(
  value: jax.Array, operands: Sequence[Node], elementwise: bool = False
) -> Node:
  """An active result, of its operands' origin if they share one."""
  origins = {id(n.origin): n.origin for n in operands if n.active}
  if elementwise and len(origins) == 1:
    (origin,) = origins.values()
    return Node(value, Activity.ACTIVE, origin)
  return Node(value, Activity.ACTIVE, object())


def _merged(value: jax.Array, operands: Sequence[Node]) -> Node:
  """A result that depends on the input through held factors only."""
  frozen = [node for node in operands if node.frozen]
  owners = {id(n.own): n.own for n in frozen}
  own = frozen[0].own if len(owners) == 1 else object()
  return Node(
    jax.lax.stop_gradient(value),
    Activity.FROZEN,
    own=own,
    source=frozen[0].source,
  )


_LINEAR = (
  *("add", "add_any", "sub", "neg", "copy", "copy_p", "convert_element_type"),
  *("reshape", "transpose", "broadcast_in_dim", "squeeze", "expand_dims"),
  *("slice", "dynamic_slice", "gather", "rev", "concatenate", "pad", "split"),
  *("select_n", "dynamic_update_slice", "scatter", "scatter-add"),
  *("reduce_sum", "cumsum", "reduce_precision", "real", "imag", "psum"),
  *("all_gather", "sharding_constraint", "optimization_barrier", "pvary"),
  *("device_put", "reduce_window_sum", "mesh_cast", "reshard", "tile"),
)
_ELEMENTWISE = frozenset(
  ("add", "add_any", "sub", "neg", "copy", "copy_p", "convert_element_type")
)

HANDLERS: Mapping[str, Handler] = {
  **dict.fromkeys(_LINEAR, linear),
  **dict.fromkeys(("mul", "dot_general", "conv_general_dilated"), product),
  **dict.fromkeys(("integer_pow", "square"), power),
  **dict.fromkeys(("max", "min", "reduce_max", "reduce_min"), piecewise),
  "div": quotient,
  "stop_gradient": stop_gradient,
}
