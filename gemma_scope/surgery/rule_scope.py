"""Rule scopes: visible layers that say which relevance rules hold where.

    model = rule_scope(model, "mlp[3:]", {"weights": lrp.Gamma(0.1)})

A scope computes what the layer inside it computes. It names what it surrounds
after its rules, and `lrp.transform`, which reads the names, obeys: inside, its
rules go before those of the table, and of nested scopes the innermost wins. At
one place the scope made last is the innermost. Any JAX function can open such
a scope with `lrp.scope`. A scope on some layers of a scanned stack splits the
scan around them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
import dataclasses
import re
from typing import Any

import jax
from penzai import pz

from gemma_scope.errors import ConfigError, SiteError
from gemma_scope.model.gemma import Gemma
from gemma_scope.model.site_layer import ActiveLayer
from gemma_scope.sites import SITES, Site, resolve

Rules = tuple[tuple[str, Any], ...]

# Whole parts of a decoder layer, beside what makes a site.
PARTS = ("block", "attn", "mlp")
PREFIX = "rules"

_ATTENTION = (1, "delta", 2)
_FEEDFORWARD = (3, "delta", 2)
# Name -> where the layers are that compute it, and the scope inside, if it is
# a part of what they do.
_PLACES: Mapping[str, tuple[tuple[tuple[Any, ...], ...], str | None]] = {
  "block": (((),), None),
  "attn": ((_ATTENTION,), None),
  "mlp": ((_FEEDFORWARD,), None),
  "attn_in": (((1, "delta", 0),), None),
  "query": (
    ((*_ATTENTION, "to_query"), (*_ATTENTION, "query_norm")),
    None,
  ),
  "key": (
    ((*_ATTENTION, "to_key_value"), (*_ATTENTION, "key_norm")),
    None,
  ),
  "value": (((*_ATTENTION, "to_key_value"),), None),
  "pattern": ((_ATTENTION,), "pattern"),
  "z": ((_ATTENTION,), "z"),
  "attn_proj": (((*_ATTENTION, "output"),), None),
  "attn_write": (((1, "delta", 4),), None),
  "resid_mid": (((1,),), None),
  "mlp_in": (((3, "delta", 0),), None),
  "mlp_act": ((_FEEDFORWARD,), "mlp_act"),
  "mlp_proj": (((*_FEEDFORWARD, "down"),), None),
  "mlp_write": (((3, "delta", 4),), None),
  "resid_post": (((3,),), None),
}


@pz.pytree_dataclass(has_implicitly_inherited_fields=True)
class RuleScope(ActiveLayer):
  """Computes what `inner` computes, under rules of its own.

  Attributes:
    inner: The layer inside.
    layers: The decoder layers it acts on; None outside of them.
    rules: (kind of operation, rule) pairs.
    within: A named scope inside to which they are limited; None for all.
  """

  rules: Rules = dataclasses.field(metadata={"pytree_node": False})
  within: str | None = dataclasses.field(
    default=None, metadata={"pytree_node": False}
  )

  def __call__(self, value: Any, /, **side_inputs) -> Any:
    """Returns what `inner` returns."""
    with jax.named_scope(scope_name(self.rules, self.within)):
      return self.inner(value, **side_inputs)


def rule_scope(
  model: Gemma,
  where: Iterable[Site | str] | Site | str,
  rules: Mapping[str, Any],
) -> Gemma:
  """Returns a model with other relevance rules in some places.

  Its values are the same, and so are plain gradients, which obey no rules.

  Args:
    model: The model.
    where: "block[3]", "attn[:]" (from its products to W_O), "mlp[5:]" (from
      gate and up to down), or sites: then what computes that site from the one
      before. `query` and `key` are product and norm, `resid_mid` and
      `resid_post` the whole branches with their norms; `key` and `value` share
      one product, so a scope at either holds for both.
    rules: Kind of operation -> rule (see `attribution.composites`).

  Raises:
    SiteError: If there is no such place, or nothing is computed there.
    ConfigError: If the rules are none.
  """
  named = checked_rules(rules)
  specs = (where,) if isinstance(where, str | Site) else tuple(where)
  for spec in specs:
    name, layers = _place(spec, model.stack.num_layers)
    model = _scoped(model, name, layers, named)
  return model


def scope_name(rules: Rules, within: str | None = None) -> str:
  """How a scope is called in the program, for the transform to read."""
  return f"{PREFIX}[{within or ''}]{dict(rules)!r}"


def checked_rules(rules: Mapping[str, Any]) -> Rules:
  """Rules as hashable pairs, in the order of their kinds.

  Raises:
    ConfigError: If they are none, or not made of plain numbers.
  """
  good = isinstance(rules, Mapping) and bool(rules)
  if not good or not all(map(_is_named, rules, rules.values())):
    raise ConfigError(
      "A rule scope needs rules by the kind of operation.",
      received=repr(rules),
      instead='for example {"weights": lrp.Epsilon(0.1)}, with plain numbers',
    )
  return tuple(sorted(rules.items()))


def _is_named(kind: object, rule: object) -> bool:
  """Whether a rule can be told from its name."""
  if not isinstance(kind, str) or not re.fullmatch(r"[\w-]+", kind):
    return False
  if not dataclasses.is_dataclass(rule) or isinstance(rule, type):
    return False
  values = [getattr(rule, field.name) for field in dataclasses.fields(rule)]
  return all(type(value) in (bool, int, float) for value in values)


def _place(
  spec: Site | str, num_layers: int
) -> tuple[str, tuple[int, ...] | None]:
  """The name of a place, and its layers."""
  text = str(spec).strip()
  name = text.partition("[")[0].strip()
  if name in PARTS:
    return name, _layers(text, name, num_layers)
  sites = resolve(spec, num_layers)
  name = sites[0].name
  if name == "final_norm":
    return name, None
  if name not in _PLACES:
    raise SiteError(
      "No layer of the model computes this site by rules of its own.",
      received=text,
      instead=f"one of {', '.join((*PARTS, *_sites()))}, final_norm",
    )
  return name, tuple(site.layer for site in sites if site.layer is not None)


def _layers(text: str, part: str, num_layers: int) -> tuple[int, ...]:
  """The layers of "attn[3:]", read as those of a site."""
  like = "resid_post"
  try:
    sites = resolve(text.replace(part, like, 1), num_layers)
  except SiteError as error:
    raise SiteError(
      error.what.replace(like, part),
      received=text,
      instead=error.instead.replace(like, part),
    ) from None
  return tuple(site.layer for site in sites if site.layer is not None)


def _sites() -> list[str]:
  return [name for name in SITES if name in _PLACES]


def _scoped(
  model: Gemma, name: str, layers: tuple[int, ...] | None, rules: Rules
) -> Gemma:
  """A model with scopes at one place of some layers."""
  if layers is None:
    outside = lambda layer: RuleScope(layer, None, rules)  # noqa: E731
    return _at(model, (name,), outside)
  stack, size = model.stack, len(model.stack.period)
  paths, within = _PLACES[name]

  def change(block: Any, held: range) -> Any:
    chosen = tuple(i for i in held if i in layers)
    for path in paths if chosen else ():
      make = lambda layer: RuleScope(layer, chosen, rules, within)  # noqa: E731
      block = _at(block, path, make)
    return block

  whole = size * stack.num_periods
  period = tuple(
    change(block, range(k, whole, size)) for k, block in enumerate(stack.period)
  )
  rest = tuple(
    change(block, range(whole + i, whole + i + 1))
    for i, block in enumerate(stack.rest)
  )
  stack = dataclasses.replace(stack, period=period, rest=rest)
  return dataclasses.replace(model, stack=stack)


def _at(layer: Any, path: Sequence[Any], change: Callable[[Any], Any]) -> Any:
  """A layer with what stands at a path of it changed, inside all scopes."""
  if isinstance(layer, ActiveLayer):
    return dataclasses.replace(layer, inner=_at(layer.inner, path, change))
  if not path:
    return change(layer)
  first, *rest = path
  if isinstance(first, int):
    parts = list(layer.sublayers)
    parts[first] = _at(parts[first], rest, change)
    return dataclasses.replace(layer, sublayers=parts)
  part = _at(getattr(layer, first), rest, change)
  return dataclasses.replace(layer, **{first: part})
