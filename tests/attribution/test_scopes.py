"""Scopes with rules: read from the program, wherever it is nested."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gemma_scope import errors
from gemma_scope.attribution import lrp, scopes
from gemma_scope.surgery.rule_scope import scope_name
from tests.attribution.checks import assert_same_bits, relevance

X = 1.5 * jax.random.normal(jax.random.key(0), (4, 6))
W = jax.random.normal(jax.random.key(1), (6, 6))
ZPLUS = {"weights": lrp.ZPlus()}
EVERY = (
  *(lrp.Native(), lrp.Stop(own=True), lrp.Softmax(), lrp.Identity(1e-7)),
  *(lrp.Half(), lrp.Epsilon(0.25), lrp.Gamma(0.1, 1e-8), lrp.ZPlus()),
  *(lrp.AlphaBeta(1.5, 0.5), lrp.WSquare()),
)


def test_rules_are_read_as_they_were_written():
  kinds = ("weights", "scatter-max", "exp", "max", "min")
  for i in range(0, len(EVERY), 5):
    rules = dict(zip(kinds, EVERY[i : i + 5]))
    (found,) = scopes.rules_within(f"block/{scope_name(tuple(rules.items()))}")
    assert found == rules


def test_the_innermost_scope_wins_and_parts_are_inside():
  half, stop, zplus = ((("a", r),) for r in (lrp.Half(), lrp.Stop(), EVERY[7]))
  outer, inner = scope_name(half), scope_name(stop)
  part = scope_name(zplus, "z")
  find = lambda *names: scopes.rule_within("/".join(names), "a")  # noqa: E731
  assert find("block", "mlp") is None
  assert find(outer, "mlp") == lrp.Half()
  assert find(outer, "x", inner) == lrp.Stop()
  assert find(inner, outer) == lrp.Half()
  assert find(part, "pattern") is None
  assert find(part, "pattern", "z") == lrp.ZPlus()
  assert find(part, outer, "z") == lrp.ZPlus()
  assert find(part, "z", outer) == lrp.Half()
  assert scopes.rule_within(outer, "b") is None


def doubled(x):
  with lrp.scope(ZPLUS):
    y = x @ W
  return y @ W.T


def by_hand(x):
  """The same, with the surrogate of the z+ rule written out."""
  y = x @ W
  up, down = jnp.maximum(x, 0), jnp.minimum(x, 0)
  z = up @ jnp.maximum(W, 0) + down @ jnp.minimum(W, 0)
  passed = z * jax.lax.stop_gradient(y / z)
  return lrp.same_value(y, passed) @ W.T


WRAPS = {
  "plain": lambda f: f,
  "jit": jax.jit,
  "remat": jax.checkpoint,
  "vmap": lambda f: jax.vmap(lambda row: f(row[None])[0]),
  "scan": lambda f: lambda x: jax.lax.map(lambda row: f(row[None])[0], x),
  "cond": lambda f: lambda x: jax.lax.cond(True, f, f, x),
  "jit_of_scan": lambda f: jax.jit(
    lambda x: jax.lax.map(jax.jit(lambda row: f(row[None])[0]), x)
  ),
}


@pytest.mark.parametrize("name", WRAPS)
def test_any_function_may_open_one(name):
  f = lambda x: WRAPS[name](doubled)(x).sum()  # noqa: E731
  found = relevance(f, X, lrp.CP_LRP)
  expected = relevance(lambda x: by_hand(x).sum(), X, lrp.CP_LRP)
  scale = np.abs(expected).max()
  np.testing.assert_allclose(found / scale, expected / scale, atol=1e-6)
  plain = relevance(lambda x: (x @ W @ W.T).sum(), X, lrp.CP_LRP)
  assert np.abs(found - plain).max() > 1e-2
  assert_same_bits(lrp.transform(f, lrp.CP_LRP)(X), f(X))


def test_a_scope_around_a_jitted_function_is_no_scope_around_another():
  inner = jax.jit(lambda x: x @ W)

  def f(x):
    with lrp.scope(ZPLUS):
      scoped = inner(x)
    return (scoped * jnp.asarray([[1.0], [0], [0], [0]])).sum() + (
      inner(x) * jnp.asarray([[0.0], [1], [1], [1]])
    ).sum()

  found = relevance(f, X, lrp.CP_LRP)
  plain = relevance(lambda x: inner(x).sum(), X, lrp.CP_LRP)
  np.testing.assert_allclose(found[1:], plain[1:], rtol=1e-5, atol=1e-6)
  assert np.abs(found[0] - plain[0]).max() > 1e-2


def test_scopes_go_before_tables_and_make_functions_pass():
  table = lrp.CP_LRP.within("*", {"weights": lrp.Gamma(3.0)})
  expected = relevance(lambda x: doubled(x).sum(), X, lrp.CP_LRP)

  def f(x):
    with lrp.scope({"sin": lrp.Identity(), "weights": lrp.Native()}):
      return jnp.sin(doubled(x)).sum()

  with pytest.raises(lrp.RuleError, match="`sin`"):
    lrp.transform(lambda x: jnp.sin(x).sum(), table)(X)
  found = relevance(f, X, table)
  assert np.isfinite(found).all()
  assert np.abs(expected).max() > 0
  # Plain gradients obey nothing.
  gradient = jax.grad(lrp.transform(f, lrp.GRADIENT))(X)
  np.testing.assert_allclose(gradient, jax.grad(f)(X), rtol=1e-5)


def test_programs_in_scopes_without_rules_are_emitted_once():
  inner = jax.jit(lambda x: x @ W)

  def f(x):
    for name in ("first", "second"):
      with jax.named_scope(name):
        x = inner(x)
    return x.sum()

  program = jax.make_jaxpr(lrp.transform(f, lrp.CP_LRP))(X)
  found = [e.params["jaxpr"] for e in program.eqns if e.primitive.name == "jit"]
  assert len(found) == 2
  assert found[0] is found[1]


@dataclasses.dataclass(frozen=True)
class Unknown:
  """A rule of somebody else's."""

  strength: float = 1.0


@pytest.mark.parametrize(
  ("rules", "match"),
  [
    ({"weights": Unknown()}, r"does not know.*\n.*Unknown\(strength=1.0\)"),
    ({}, "needs rules by the kind"),
    ({"weights": 0.1}, "needs rules by the kind"),
  ],
)
def test_unknown_rules_are_refused(rules, match):
  with pytest.raises(errors.ConfigError, match=match):
    lrp.scope(rules)
