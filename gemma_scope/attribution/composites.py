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
scales held); Shrikumar et al. 2017 (DEEPLIFT: it compares two runs, for
`deeplift.deep_lift`). LRP is reported to be patented technology, free for
research.
"""

from collections.abc import Mapping
import dataclasses
import fnmatch
import functools
import types
from typing import Any

from gemma_scope.attribution.rescale import Rescale
from gemma_scope.attribution.rules import (
  Epsilon,
  Gamma,
  Half,
  Native,
  Rule,
  Softmax,
  Stop,
)
from gemma_scope.errors import ConfigError
from gemma_scope.sites import Site

WEIGHTS = "weights"
PRODUCT = "product"
QUOTIENT = "quotient"
CLIP = "clip"


@dataclasses.dataclass(frozen=True, eq=False)
class RuleTable:
  """Rules by kind of operation; equal tables compile once.

  Attributes:
    name: What to call it in errors and reports.
    rules: Kind -> rule.
    scopes: (pattern, kind -> rule) pairs that go first inside named scopes
      whose path matches the pattern (`fnmatch`), the last match winning.
    native: Whether every operation without a rule keeps its derivative, also
      a non-linear one; only the empty table of plain gradients does.
    places: (address, kind -> rule) pairs for places of a Gemma, see `at`.
  """

  name: str
  rules: Mapping[str, Rule]
  scopes: tuple[tuple[str, Mapping[str, Rule]], ...] = ()
  native: bool = False
  places: tuple[tuple[str, Mapping[str, Rule]], ...] = ()

  def __post_init__(self) -> None:
    object.__setattr__(self, "rules", _fixed(self.rules))
    for field in ("scopes", "places"):
      pairs = tuple((where, _fixed(r)) for where, r in getattr(self, field))
      object.__setattr__(self, field, pairs)

  @functools.cached_property
  def _key(self) -> tuple[Any, ...]:
    """What makes two tables equal."""
    pairs = (self.scopes, self.places)
    narrowed = tuple(
      tuple((where, frozenset(r.items())) for where, r in part)
      for part in pairs
    )
    return self.name, frozenset(self.rules.items()), narrowed, self.native

  def __eq__(self, other: object) -> bool:
    return isinstance(other, RuleTable) and self._key == other._key

  def __hash__(self) -> int:
    return hash(self._key)

  @property
  def plain(self) -> bool:
    """Whether it is the table of plain gradients."""
    return self.native and not (self.rules or self.scopes or self.places)

  def find(self, kind: str, scope: str) -> Rule | None:
    """The rule for a kind of operation inside a named scope."""
    for pattern, rules in reversed(self.scopes):
      if kind in rules and fnmatch.fnmatch(scope, pattern):
        return rules[kind]
    return self.rules.get(kind)

  def replace(self, name: str, rules: Mapping[str, Rule]) -> "RuleTable":
    """This table with some rules set, under another name."""
    return dataclasses.replace(self, name=name, rules={**self.rules, **rules})

  def within(self, pattern: str, rules: Mapping[str, Rule]) -> "RuleTable":
    """This table with other rules inside matching named scopes."""
    return dataclasses.replace(self, scopes=(*self.scopes, (pattern, rules)))

  def at(self, where: Site | str, rules: Mapping[str, Rule]) -> "RuleTable":
    """This table with other rules in some places of a Gemma.

    For `gs.attribute` and `relevance`, which put a `surgery.rule_scope` there;
    `transform` itself knows of no layers and refuses such a table.

    Args:
      where: An address such as "mlp[3:]", see `surgery.rule_scope`.
      rules: Kind of operation -> rule; the last one at a place wins.

    Raises:
      ConfigError: If this is the table of plain gradients, which obey no rule.
    """
    if self.plain:
      raise ConfigError(
        "Plain gradients obey no rules, in no place.",
        received=f"{self.name}.at({str(where)!r}, …)",
        instead='RuleTable("mine", {"exp": lrp.Native()}, native=True).at(…)',
      )
    return dataclasses.replace(self, places=(*self.places, (str(where), rules)))


def _fixed(rules: Mapping[str, Rule]) -> Mapping[str, Rule]:
  """A copy of a mapping that cannot be changed."""
  return types.MappingProxyType(dict(rules))


GRADIENT = RuleTable("GRADIENT", {}, native=True)

ATTN_LRP = RuleTable(
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
  {"rsqrt": Stop(), "sqrt": Stop(), "exp": Stop()},
  native=True,
)

_FUNCTIONS = (
  *("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh"),
  *("asinh", "acosh", "atanh", "exp", "exp2", "expm1", "log", "log1p"),
  *("logistic", "erf", "erfc", "sqrt", "rsqrt", "cbrt", "abs", "pow"),
  *("max", "min", CLIP, PRODUCT, QUOTIENT),
)

DEEPLIFT = RuleTable(
  "DEEPLIFT", {**dict.fromkeys(_FUNCTIONS, Rescale()), WEIGHTS: Native()}
)
