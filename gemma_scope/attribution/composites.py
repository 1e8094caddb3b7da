"""Rule tables: which rule passes which kind of operation.

Kinds are the names of JAX primitives (`tanh`, `exp`, `rsqrt`, …) and four of
our own:

    weights   a matrix product or convolution of active values with constants
    product   a product of active values: `mul`, `dot_general`, `integer_pow`
    quotient  a division by an active value; Stop holds the denominator constant
    clip      a constant that may take the place of an active value, by `max`,
              `min`, `clamp` or a `where` that depends on the input; not relu

A method is a table. Plain gradients are the empty one.

Sources: Achtibat et al. 2024, "AttnLRP" (ATTN_LRP); Ali et al. 2022, "XAI for
Transformers" (CP_LRP: attention patterns as constants); Bach et al. 2015
(LRP_EPSILON); Ameisen et al. 2025, "Circuit Tracing" (FROZEN: patterns and norm
scales held). LRP is reported to be patented technology, free for research.
"""

from collections.abc import Mapping
import dataclasses
import fnmatch
import types

from gemma_scope.attribution.rules import (
  Epsilon,
  Gamma,
  Half,
  Native,
  Rule,
  Softmax,
  Stop,
)

WEIGHTS = "weights"
PRODUCT = "product"
QUOTIENT = "quotient"
CLIP = "clip"


@dataclasses.dataclass(frozen=True, eq=False)
class RuleTable:
  """Rules by kind of operation.

  Attributes:
    name: What to call it in errors and reports.
    rules: Kind -> rule.
    scopes: (pattern, kind -> rule) pairs that go first inside named scopes
      whose path matches the pattern (`fnmatch`), the last match winning.
    native: Whether every operation without a rule keeps its derivative, also
      a non-linear one; only the empty table of plain gradients does.
  """

  name: str
  rules: Mapping[str, Rule]
  scopes: tuple[tuple[str, Mapping[str, Rule]], ...] = ()
  native: bool = False

  def find(self, kind: str, scope: str) -> Rule | None:
    """The rule for a kind of operation inside a named scope."""
    for pattern, rules in reversed(self.scopes):
      if kind in rules and fnmatch.fnmatch(scope, pattern):
        return rules[kind]
    return self.rules.get(kind)

  def replace(self, name: str, rules: Mapping[str, Rule]) -> "RuleTable":
    """This table with some rules set, under another name."""
    both = types.MappingProxyType({**self.rules, **rules})
    return dataclasses.replace(self, name=name, rules=both)

  def within(self, pattern: str, rules: Mapping[str, Rule]) -> "RuleTable":
    """This table with other rules inside matching named scopes."""
    return dataclasses.replace(self, scopes=(*self.scopes, (pattern, rules)))


def _table(name: str, rules: dict[str, Rule]) -> RuleTable:
  return RuleTable(name, types.MappingProxyType(rules))


GRADIENT = RuleTable("GRADIENT", types.MappingProxyType({}), native=True)

ATTN_LRP = _table(
  "ATTN_LRP",
  {
    "rsqrt": Stop(),
    "sqrt": Stop(),
    "tanh": Stop(own=True),
    "logistic": Stop(own=True),
    "erf": Stop(own=True),
    "erfc": Stop(own=True),
    "exp": Softmax(),
    CLIP: Stop(own=True),
    "abs": Native(),
    "reduce_max": Native(),
    "reduce_min": Native(),
    "max": Native(),
    "min": Native(),
    PRODUCT: Half(),
    WEIGHTS: Native(),
  },
)

CP_LRP = ATTN_LRP.replace("CP_LRP", {"exp": Stop()})

LRP_EPSILON = CP_LRP.replace("LRP_EPSILON", {WEIGHTS: Epsilon()})

LRP_GAMMA = CP_LRP.replace("LRP_GAMMA", {WEIGHTS: Gamma()})

FROZEN = RuleTable(
  "FROZEN",
  types.MappingProxyType({"rsqrt": Stop(), "sqrt": Stop(), "exp": Stop()}),
  native=True,
)
