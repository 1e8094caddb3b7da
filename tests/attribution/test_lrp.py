"""The namespace `gs.lrp`, as a user meets it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

import gemma_scope as gs
from gemma_scope.attribution import rules
from gemma_scope.attribution.composites import RuleTable


def test_every_rule_and_table_is_there():
  for name, value in vars(rules).items():
    if dataclasses.is_dataclass(value):
      assert getattr(gs.lrp, name) is value
  tables = {v.name for v in vars(gs.lrp).values() if isinstance(v, RuleTable)}
  assert tables == {
    *("GRADIENT", "ATTN_LRP", "CP_LRP", "LRP_EPSILON", "LRP_GAMMA", "FROZEN"),
    "DEEPLIFT",
  }


def test_the_line_in_the_docstring_runs():
  w = jax.random.normal(jax.random.key(0), (4, 3))

  def f(x):
    return jax.nn.gelu(x @ w).sum()

  x = jnp.linspace(-1.0, 2.0, 4)
  relevance = x * jax.grad(gs.lrp.transform(f, gs.lrp.ATTN_LRP))(x)
  np.testing.assert_allclose(relevance.sum(), f(x), rtol=1e-5)


def test_a_user_brings_a_table_of_their_own():
  mine = gs.lrp.CP_LRP.replace("mine", {"tanh": gs.lrp.Identity()})
  mine = mine.within("*first*", {"weights": gs.lrp.ZPlus()})
  w = jax.random.normal(jax.random.key(1), (5, 5))

  def f(x):
    with jax.named_scope("the first layer"):
      x = x @ w
    return (jnp.tanh(x) @ w).sum()

  x = jnp.abs(jax.random.normal(jax.random.key(2), (3, 5))) + 0.1
  found = x * jax.grad(gs.lrp.transform(f, mine))(x)
  y = x @ w
  r = y * jax.grad(gs.lrp.transform(lambda y: (jnp.tanh(y) @ w).sum(), mine))(y)
  up = np.maximum(np.asarray(x)[:, :, None] * np.asarray(w)[None], 0)
  expected = (up / up.sum(axis=1, keepdims=True) * r[:, None]).sum(axis=2)
  np.testing.assert_allclose(found, expected, rtol=1e-4)
