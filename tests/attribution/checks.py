"""What the tests of the relevance engine ask of a function and a table."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from gemma_scope.attribution import lrp

Function = Callable[..., Any]


def relevance(f: Function, x: Any, rules: lrp.RuleTable, **options) -> Any:
  """x * gradient of the transformed scalar function, leaf by leaf."""
  gradient = jax.jit(jax.grad(lrp.transform(f, rules, **options)))(x)
  return jax.tree.map(lambda a, b: a * b, x, gradient)


def total(relevances: Any) -> float:
  leaves = jax.tree.leaves(relevances)
  return float(sum(np.asarray(leaf, np.float64).sum() for leaf in leaves))


def assert_conserves(
  f: Function, x: Any, rules: lrp.RuleTable, tolerance: float = 1e-5, **options
) -> Any:
  """Relevance sums to the value, is not zero, and is returned."""
  found = relevance(f, x, rules, **options)
  mass = sum(float(np.abs(leaf).sum()) for leaf in jax.tree.leaves(found))
  assert mass > 1e-3
  assert abs(total(found) - float(f(x))) <= tolerance * max(mass, 1.0)
  return found


def assert_same_bits(found: Any, expected: Any) -> None:
  """Equal to the last bit, type and shape included."""
  found, expected = jax.tree.leaves(found), jax.tree.leaves(expected)
  assert len(found) == len(expected)
  for a, b in zip(found, expected):
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(
      np.asarray(a, np.float64), np.asarray(b, np.float64)
    )


def identity_for(rules: lrp.RuleTable, *kinds: str) -> lrp.RuleTable:
  """The remedy that errors name, for some kinds of operation."""
  return rules.replace("mine", dict.fromkeys(kinds, lrp.Identity()))
