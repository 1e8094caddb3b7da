"""How a program is emitted again, and what is said where it cannot be.

A fault is made here and carried by the value it concerns (see `activity`); it
becomes an error only if that value reaches the result.
"""

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any

from gemma_scope.attribution import composites, jaxprs, scopes
from gemma_scope.attribution import rules as rule_lib
from gemma_scope.attribution.activity import Fault, Node
from gemma_scope.errors import GemmaScopeError

# Elementwise functions: the identity rule can pass their relevance.
FUNCTIONS = frozenset(
  (
    *("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh"),
    *("asinh", "acosh", "atanh", "exp", "exp2", "expm1", "log", "log1p"),
    *("logistic", "erf", "erfc", "erf_inv", "lgamma", "digamma", "sqrt"),
    *("rsqrt", "cbrt", "abs", "sign", "floor", "ceil", "round", "square"),
    *("integer_pow", "pow", "rem", "max", "min", "nextafter", "clip"),
  )
)
# They pick values: their gradient is a selection and conserves relevance.
SELECTIONS = frozenset(
  (
    *("sort", "top_k", "approx_top_k", "cummax", "cummin", "reduce_max"),
    *("reduce_min", "reduce_window_max", "reduce_window_min", "scatter-max"),
    *("scatter-min", "select_and_gather_add"),
  )
)

_MEANINGS = {
  composites.CLIP: " (clip: a constant takes the place of an active value)",
  composites.QUOTIENT: " (quotient: the denominator is active)",
  composites.PRODUCT: " (a product of active values)",
  composites.WEIGHTS: " (a product with weights)",
  "cond": " (the input chooses a constant in the place of an active value)",
}


class RuleError(GemmaScopeError):
  """Relevance cannot be passed through an operation as the rules say."""


@dataclasses.dataclass(frozen=True)
class Emission:
  """How a program is being emitted again.

  Attributes:
    rules: The rule table.
    strict: Whether an operation without a rule is a fault.
    evaluate: Emits a whole program, for operations that hold one.
    scope: Named scopes around the program that holds this one.
  """

  rules: composites.RuleTable
  strict: bool
  evaluate: Callable[["Emission", Any, Sequence[Node]], list[Node]]
  scope: str = ""

  @property
  def lenient(self) -> bool:
    """Whether an operation without a rule keeps its derivative."""
    return self.rules.native or not self.strict

  def path(self) -> str:
    """The named scopes around where the program now stands."""
    return "/".join(filter(None, (self.scope, jaxprs.current_scope())))

  def inside(self) -> "Emission":
    """For a program that is traced anew, without the scopes around it.

    Where no rule depends on them they are forgotten, so that equal programs in
    different scopes are emitted once.
    """
    path = self.path()
    matters = bool(self.rules.scopes) or scopes.carries_rules(path)
    return dataclasses.replace(self, scope=path if matters else "")

  def find(self, kind: str) -> rule_lib.Rule | None:
    """The rule that scopes or the table give a kind of operation here."""
    path = self.path()
    return scopes.rule_within(path, kind) or self.rules.find(kind, path)

  def rule(self, kind: str) -> rule_lib.Rule | None:
    """The same, and what holds where there is none."""
    found = self.find(kind)
    if found is None and self.lenient:
      return rule_lib.Native()
    return found

  def lost(self, node: Node, how: str) -> Fault | None:
    """The fault of a frozen value that multiplies nothing active."""
    source = node.source
    if not node.frozen or source is None:
      return None
    if source.choice:
      what = "Relevance is lost: a choice that depends on the input"
      instead = (
        "jax.lax.stop_gradient around it, if the function means a constant, "
        "or strict=False"
      )
    else:
      what = "Relevance is lost: a value that a rule holds constant"
      instead = f"another rule for it: {_replace(source.kind, 'Identity')}"
    what = f"{what} {how}, where it multiplies nothing active."
    return Fault(what, source.kind, source.line, instead)

  def uncovered(self, eqn: jaxprs.Equation, kind: str) -> Fault:
    """The fault of an operation on the active path that has no rule.

    Args:
      eqn: The operation.
      kind: What its rule would be called.
    """
    name = eqn.primitive.name
    rule = self.rule(kind)
    shown = f"`{name}`{_MEANINGS.get(kind, '')}"
    what = f"No rule says how relevance passes the operation {shown}."
    if rule is not None:
      applied = type(rule).__name__
      what = f"The rule {applied} does not apply to the operation {shown}."
    instead = f"{_remedy(kind)} or strict=False to keep its gradient"
    return Fault(what, name, jaxprs.source_line(eqn), instead)

  def error(self, fault: Fault) -> RuleError:
    """The error to raise for a fault."""
    return RuleError(
      fault.what,
      received=f"{fault.kind} at {fault.line} under {self.rules.name}",
      instead=fault.instead,
    )


def _remedy(kind: str) -> str:
  if kind == composites.QUOTIENT:
    held = _replace(kind, "Stop")
    return f"{held} to hold the denominator constant,"
  if kind == composites.PRODUCT:
    return f"{_replace(kind, 'Half')},"
  if kind in SELECTIONS:
    return f"{_replace(kind, 'Native')}, which passes to what it picks,"
  if kind in FUNCTIONS:
    return f"{_replace(kind, 'Identity')},"
  return "a function made of operations with rules,"


def _replace(kind: str, rule: str) -> str:
  return f'rules.replace("mine", {{"{kind}": lrp.{rule}()}})'
