"""Named scopes that carry rules, read from the path where a program stands.

    with lrp.scope({"weights": lrp.Epsilon(0.1)}):
      y = x @ w

The path of an operation says which scopes surround it. One that was opened with
rules (here, or by `surgery.rule_scope`) is named after them, so that nothing
but the program itself says which rule holds where.
"""

import ast
from collections.abc import Mapping
from contextlib import AbstractContextManager
import dataclasses
import functools
import re
from typing import Any

import jax

from gemma_scope.attribution import rules as rule_lib
from gemma_scope.errors import ConfigError
from gemma_scope.surgery.rule_scope import PREFIX, checked_rules, scope_name

_NAME = re.compile(rf"{PREFIX}\[(\w*)\](\{{.*\}})")


def scope(rules: Mapping[str, rule_lib.Rule]) -> AbstractContextManager[Any]:
  """A context in which operations have other rules than their table's.

  Args:
    rules: Kind of operation -> rule (see `composites`).

  Raises:
    ConfigError: If the rules are none, or not known here.
  """
  name = scope_name(checked_rules(rules))
  rules_within(name)
  return jax.named_scope(name)


def rule_within(path: str, kind: str) -> rule_lib.Rule | None:
  """The rule that the scopes of a path give a kind of operation.

  Args:
    path: Names of the scopes around an operation, with "/" between them.
    kind: The kind of operation.
  """
  if not carries_rules(path):
    return None
  for rules in reversed(rules_within(path)):
    if kind in rules:
      return rules[kind]
  return None


def carries_rules(path: str) -> bool:
  """Whether a scope of a path may have rules."""
  return f"{PREFIX}[" in path


@functools.lru_cache(maxsize=4096)
def rules_within(path: str) -> tuple[Mapping[str, rule_lib.Rule], ...]:
  """Rules of all scopes of a path that hold at its end, the innermost last.

  A scope limited to one inside it stands where that one stands.

  Raises:
    ConfigError: If a rule is not known here.
  """
  names = path.split("/")
  found = []
  for i, name in enumerate(names):
    match = _NAME.fullmatch(name)
    if match is None:
      continue
    rules, inside = _read(match[2]), names[i + 1 :]
    if not match[1]:
      found.append((i, rules))
    elif match[1] in inside:
      found.append((i + 1 + inside.index(match[1]), rules))
  return tuple(rules for _, rules in sorted(found, key=lambda pair: pair[0]))


def _read(text: str) -> dict[str, rule_lib.Rule]:
  """Rules from how they print."""
  tree = ast.parse(text, mode="eval").body
  assert isinstance(tree, ast.Dict)
  keys = [ast.literal_eval(key) for key in tree.keys if key is not None]
  return dict(zip(keys, map(_rule, tree.values)))


def _rule(node: ast.expr) -> rule_lib.Rule:
  """A rule from its call."""
  assert isinstance(node, ast.Call)
  name = node.func.id if isinstance(node.func, ast.Name) else ""
  known: dict[str, Any] = {
    key: value
    for key, value in vars(rule_lib).items()
    if dataclasses.is_dataclass(value)
  }
  if name not in known:
    raise ConfigError(
      "A rule scope holds a rule that the transform does not know.",
      received=ast.unparse(node),
      instead=f"one of {', '.join(sorted(known))}",
    )
  arguments = {k.arg: ast.literal_eval(k.value) for k in node.keywords if k.arg}
  return known[name](**arguments)
