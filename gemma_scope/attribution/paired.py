"""Operations under the rescale rule, where a program runs for two inputs.

What is linear, and a product with constants, is left to `operations`. A choice
that the input makes differently in the two runs passes to what it chooses. What
the function itself holds constant hides its change: only a softmax, which
subtracts such a maximum, is made up for.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

from gemma_scope.attribution import composites, jaxprs
from gemma_scope.attribution.activity import Node, activated
from gemma_scope.attribution.emission import FUNCTIONS, Emission
from gemma_scope.attribution.operations import Handler, linear, passed
from gemma_scope.attribution.rescale import Rescale

# Operation -> the kind under which a table has its rule.
_KINDS: Mapping[str, str] = {
  **dict.fromkeys(
    ("mul", "dot_general", "conv_general_dilated"), composites.PRODUCT
  ),
  **dict.fromkeys(("integer_pow", "square"), composites.PRODUCT),
  **dict.fromkeys(("clamp", "select_n"), composites.CLIP),
  "div": composites.QUOTIENT,
  # They carry on what a softmax is known by.
  **dict.fromkeys(
    ("reduce_sum", "convert_element_type", "broadcast_in_dim"), "exp"
  ),
}


@dataclasses.dataclass(frozen=True, eq=False)
class _Power:
  """What an exp is the exp of."""

  value: Any


@dataclasses.dataclass(frozen=True, eq=False)
class _Sum:
  """What a sum is the sum of.

  Attributes:
    power: Of which exp.
    axes: What was summed over.
    dims: For each axis of the sum, the axis of the exp that it is; None for
      those it was spread over.
  """

  power: _Power
  axes: tuple[int, ...]
  dims: tuple[int | None, ...]

  def divides(self, power: object) -> bool:
    """Whether a division by it makes a softmax of an exp."""
    kept = all(
      d == (None if i in self.axes else i) for i, d in enumerate(self.dims)
    )
    return self.power is power and kept


def handler_of(
  emission: Emission, eqn: jaxprs.Equation, operands: Sequence[Node]
) -> Handler | None:
  """How the rescale rule passes an operation; None if it has no part in it."""
  name = eqn.primitive.name
  rule = emission.rule(_KINDS.get(name, name))
  if not isinstance(rule, Rescale):
    return None
  real = [n for n, v in zip(operands, eqn.invars) if _is_real(v)]
  active = [node for node in real if node.active]
  if not active or any(node.frozen for node in real):
    return None
  if name in _CARRIERS:
    return _CARRIERS[name]
  if name == "select_n":
    return _selection if operands[0].frozen else None
  if name in FUNCTIONS or name in ("clamp", "div"):
    return _elementwise if len(active) == 1 else _two(name, active, operands)
  return _product if len(active) == 2 else None


def _two(
  name: str, active: Sequence[Node], operands: Sequence[Node]
) -> Handler | None:
  """How an elementwise function of several active values is passed."""
  if len(active) != 2 or len(operands) != 2:
    return None
  a, b = operands
  if name == "div" and isinstance(b.power, _Sum) and b.power.divides(a.power):
    return _softmax
  return _binary


def _is_real(atom: Any) -> bool:
  return jaxprs.is_differentiable(atom)


def _rule(emission: Emission, name: str) -> Rescale:
  rule = emission.rule(_KINDS.get(name, name))
  assert isinstance(rule, Rescale)
  return rule


def _elementwise(
  emission: Emission, eqn: jaxprs.Equation, operands: Sequence[Node]
) -> list[Node]:
  """A function of one active value and constants."""
  values = [node.value for node in operands]
  place = next(i for i, node in enumerate(operands) if node.active)

  def f(x: Any) -> Any:
    return jaxprs.bind(eqn, [*values[:place], x, *values[place + 1 :]])[0]

  x = values[place]
  name = eqn.primitive.name
  y = _rule(emission, name).function(f, x, f(x))
  node = activated(y, [operands[place]], elementwise=True)
  power = _Power(x) if name == "exp" else None
  return [dataclasses.replace(node, power=power)]


def _binary(
  emission: Emission, eqn: jaxprs.Equation, operands: Sequence[Node]
) -> list[Node]:
  """An elementwise function of two active values."""

  def f(a: Any, b: Any) -> Any:
    return jaxprs.bind(eqn, [a, b])[0]

  a, b = (node.value for node in operands)
  y = _rule(emission, eqn.primitive.name).binary(f, a, b, f(a, b))
  return [activated(y, operands, elementwise=True)]


def _product(
  emission: Emission, eqn: jaxprs.Equation, operands: Sequence[Node]
) -> list[Node]:
  """A product of two active values, elementwise or of matrices."""

  def f(a: Any, b: Any) -> Any:
    return jaxprs.bind(eqn, [a, b])[0]

  a, b = (node.value for node in operands)
  y = _rule(emission, eqn.primitive.name).multiply(f, a, b, f(a, b))
  return [activated(y, operands, elementwise=eqn.primitive.name == "mul")]


def _softmax(
  emission: Emission, eqn: jaxprs.Equation, operands: Sequence[Node]
) -> list[Node]:
  """An exp divided by its own sum."""
  a, b = operands
  (p,) = jaxprs.bind(eqn, [a.value, b.value])
  rule = _rule(emission, "exp")
  p = rule.softmax(a.power.value, b.value, p, b.power.axes)
  return [activated(p, operands)]


def _selection(
  emission: Emission, eqn: jaxprs.Equation, operands: Sequence[Node]
) -> list[Node]:
  """A choice that depends on the input, among functions of one value."""
  which, *cases = operands
  active = [node for node in cases if node.active]
  (y,) = jaxprs.bind(eqn, [node.value for node in operands])
  rule = _rule(emission, "select_n")
  y = rule.selection(which.value, [node.value for node in active], y)
  node = activated(y, cases, elementwise=True)
  if len({case.origin for case in active}) > 1:
    node = node.blamed(emission.uncovered(eqn, composites.CLIP))
  return [node]


def _summed(
  emission: Emission, eqn: jaxprs.Equation, operands: Sequence[Node]
) -> list[Node]:
  """A sum; one of an exp remembers of which."""
  (node,) = linear(emission, eqn, operands)
  (x,) = operands
  if not isinstance(x.power, _Power):
    return [node]
  axes = tuple(eqn.params["axes"])
  dims = tuple(i for i in range(x.value.ndim) if i not in axes)
  return [dataclasses.replace(node, power=_Sum(x.power, axes, dims))]


def _spread(
  emission: Emission, eqn: jaxprs.Equation, operands: Sequence[Node]
) -> list[Node]:
  """A value along more axes; a sum of an exp stays one."""
  (node,) = linear(emission, eqn, operands)
  power = operands[0].power
  if not isinstance(power, _Sum):
    return [node]
  where = eqn.params["broadcast_dimensions"]
  found = dict(zip(where, power.dims))
  dims = tuple(found.get(i) for i in range(node.value.ndim))
  return [
    dataclasses.replace(node, power=dataclasses.replace(power, dims=dims))
  ]


def _converted(
  emission: Emission, eqn: jaxprs.Equation, operands: Sequence[Node]
) -> list[Node]:
  """Another dtype; an exp and its sum stay what they are."""
  nodes = passed(emission, eqn, operands)
  return [dataclasses.replace(n, power=operands[0].power) for n in nodes]


_CARRIERS: Mapping[str, Handler] = {
  "reduce_sum": _summed,
  "broadcast_in_dim": _spread,
  "convert_element_type": _converted,
}
