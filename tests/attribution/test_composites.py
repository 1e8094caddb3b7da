"""Rule tables: what they find, and what the methods are made of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gemma_scope import errors
from gemma_scope.attribution import lrp
from gemma_scope.attribution.composites import CLIP, PRODUCT, QUOTIENT, WEIGHTS
from tests.attribution.checks import relevance

X = 1.5 * jax.random.normal(jax.random.key(0), (4, 6))
W = jax.random.normal(jax.random.key(1), (6, 6))

TABLE = lrp.RuleTable("TABLE", {"exp": lrp.Stop(), WEIGHTS: lrp.Native()})


def test_a_table_finds_rules_by_kind():
  assert TABLE.find("exp", "") == lrp.Stop()
  assert TABLE.find("exp", "block/attention") == lrp.Stop()
  assert TABLE.find("sin", "") is None


def test_replace_makes_another_table():
  mine = TABLE.replace("mine", {"exp": lrp.Identity(), "sin": lrp.Native()})
  assert mine.name == "mine"
  assert mine.find("exp", "") == lrp.Identity()
  assert mine.find(WEIGHTS, "") == lrp.Native()
  assert TABLE.find("exp", "") == lrp.Stop()
  assert TABLE.find("sin", "") is None


def test_rules_within_scopes_go_first_and_the_last_wins():
  table = TABLE.within("*/mlp", {"exp": lrp.Identity()})
  table = table.within("block_3/*", {"exp": lrp.Native()})
  assert table.find("exp", "block_1/mlp") == lrp.Identity()
  assert table.find("exp", "block_3/mlp") == lrp.Native()
  assert table.find("exp", "block_1/attention") == lrp.Stop()
  assert table.find(WEIGHTS, "block_3/mlp") == lrp.Native()
  assert TABLE.scopes == ()


def test_equal_tables_are_equal_and_compile_once():
  def made(gamma=0.25):
    table = lrp.CP_LRP.replace("mine", {"weights": lrp.Gamma(gamma)})
    table = table.within("*/mlp", {"exp": lrp.Identity()})
    return table.at("mlp[3:]", {"weights": lrp.ZPlus()})

  assert made() == made()
  assert hash(made()) == hash(made())
  assert made(0.5) != made()
  others = (
    made().replace("other", {}),
    made().within("*", {"exp": lrp.Stop()}),
    made().at("mlp[0]", {"exp": lrp.Stop()}),
    lrp.CP_LRP,
  )
  assert len({made(), made(), *others}) == 5
  given = {"exp": lrp.Stop()}
  table = lrp.RuleTable("TABLE", given)
  given["exp"] = lrp.Native()
  assert table.find("exp", "") == lrp.Stop()


def test_places_need_a_model_and_rules():
  table = TABLE.at("mlp[3:]", {"exp": lrp.Stop()})
  with pytest.raises(
    errors.ConfigError, match=r"no layers.*\n.*TABLE with rules at mlp\[3:\]"
  ):
    lrp.transform(jnp.tanh, table)
  with pytest.raises(errors.ConfigError, match="Plain gradients obey no rules"):
    lrp.GRADIENT.at("mlp[3:]", {"exp": lrp.Stop()})


def test_tables_cannot_be_changed():
  for table in (lrp.ATTN_LRP, lrp.CP_LRP, lrp.GRADIENT, lrp.FROZEN):
    with pytest.raises(TypeError):
      table.rules["exp"] = lrp.Native()


def test_tables_differ_where_their_papers_do():
  attn, cp = dict(lrp.ATTN_LRP.rules), dict(lrp.CP_LRP.rules)
  assert attn.pop("exp") == lrp.Softmax()
  assert cp.pop("exp") == lrp.Stop()
  assert attn == cp
  for table, rule in (
    (lrp.LRP_EPSILON, lrp.Epsilon),
    (lrp.LRP_GAMMA, lrp.Gamma),
  ):
    rules = dict(table.rules)
    assert isinstance(rules.pop(WEIGHTS), rule)
    assert rules == {k: v for k, v in lrp.CP_LRP.rules.items() if k != WEIGHTS}


def test_relevance_tables_leave_nothing_to_the_gradient():
  for table in (lrp.ATTN_LRP, lrp.CP_LRP, lrp.LRP_EPSILON, lrp.LRP_GAMMA):
    assert not table.native
    assert table.find(PRODUCT, "") == lrp.Half()
    assert table.find(CLIP, "") == lrp.Stop(own=True)
    assert table.find(QUOTIENT, "") is None
  assert lrp.GRADIENT.native
  assert not lrp.GRADIENT.rules
  assert lrp.FROZEN.native


ATTN_REFUSED = {
  "exp": jnp.exp,
  "exp_times": lambda x: x * jnp.exp(-x),
  "logsumexp": jax.nn.logsumexp,
  "log_softmax": jax.nn.log_softmax,
  "softplus": jax.nn.softplus,
  # Shared halves of numerator and denominator would not match.
  "divided_late": lambda x: (
    jnp.exp(x) @ W / jnp.exp(x).sum(axis=-1, keepdims=True)
  ),
  "another_sum": lambda x: (
    jnp.exp(x) / jnp.exp(2 * x).sum(axis=-1, keepdims=True)
  ),
}


@pytest.mark.parametrize("name", ATTN_REFUSED)
def test_attn_lrp_takes_an_exp_inside_a_softmax_only(name):
  with pytest.raises(lrp.RuleError, match="used in another way"):
    lrp.transform(lambda x: ATTN_REFUSED[name](x).sum(), lrp.ATTN_LRP)(X)


@pytest.mark.parametrize(
  "softmax",
  [
    jax.nn.softmax,
    jax.jit(jax.nn.softmax),
    jax.checkpoint(jax.nn.softmax),
    jax.vmap(lambda row: (lambda e: e / e.sum())(jnp.exp(row))),
    lambda x: jax.jit(lambda e: e / e.sum(-1, keepdims=True))(jnp.exp(x)),
  ],
)
def test_attn_lrp_knows_a_softmax_in_any_clothes(softmax):
  def f(x):
    return (softmax(x) @ W)[:, 0].sum()

  expected = X * jax.grad(f)(X)
  found = relevance(f, X, lrp.ATTN_LRP)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_native_tables_are_gradients_where_they_have_no_rule():
  def f(x):
    return jnp.sin(jnp.clip(x @ W, -1, 2) / (1 + x**2)).sum()

  found = relevance(f, X, lrp.FROZEN)
  np.testing.assert_allclose(found, X * jax.grad(f)(X), rtol=1e-5, atol=1e-5)
  lenient = relevance(f, X, lrp.RuleTable("NONE", {}), strict=False)
  np.testing.assert_allclose(lenient, found, rtol=1e-5, atol=1e-5)
