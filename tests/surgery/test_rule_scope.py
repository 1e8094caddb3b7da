"""Rule scopes are seen, change no value, and relevance obeys them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from penzai import pz
import pytest
import treescope

from gemma_scope import errors, surgery
from gemma_scope.analysis.lens import logit_lens
from gemma_scope.attribution import lrp
from gemma_scope.attribution.objectives import logit
from gemma_scope.attribution.relevance import relevance
from gemma_scope.attribution.rows import Rows
from gemma_scope.model.convert import gemma_to_tensors
from gemma_scope.model.gemma import apply_final_norm, run
from gemma_scope.sites import Site, resolve
from gemma_scope.surgery.rule_scope import (
  PARTS,
  RuleScope,
  rule_scope,
  scope_name,
)
from gemma_scope.testing.tiny import tiny_config, tiny_gemma, tiny_lm

LAYERS = 3
CONFIG = dataclasses.replace(tiny_config(num_layers=LAYERS), period=1)
IDS = jnp.asarray([[2, 11, 7, 300, 41, 5]])
ROWS = Rows(IDS, jnp.ones_like(IDS), jnp.asarray([5]))
SITES = resolve(["embed", "resid_post[:]"], LAYERS)
EPSILON = {"weights": lrp.Epsilon(0.3)}
GAMMA = {"weights": lrp.Gamma(0.5)}


@pytest.fixture(scope="module")
def lm():
  return tiny_lm(CONFIG)


@pytest.fixture(scope="module")
def model(lm):
  return lm.model


def found(lm, model, rules=lrp.CP_LRP):
  """[sites, seq] relevance of every token."""
  target = logit(" Paris").resolve(lm)
  _, values = relevance(model, ROWS, target, SITES, rules)
  data = [v.unwrap("batch", "seq", "embedding")[0] for v in values.values()]
  return np.stack(data).sum(axis=-1)


def assert_same(a, b):
  scale = np.abs(b).max()
  np.testing.assert_allclose(a / scale, b / scale, atol=2e-6)


def differ(a, b):
  return np.abs(a - b).max() > 1e-3 * np.abs(b).max()


def places(layers):
  return [f"{name}[{layers}]" for name in (*PARTS, *_SITES)]


@pytest.mark.parametrize("scan", [True, False])
def test_no_value_changes_by_a_bit(scan):
  model = tiny_gemma(CONFIG, scan=scan)
  # Elsewhere a scan is split, which may round otherwise.
  where = places(":") if scan else places("1")
  scoped = rule_scope(model, [*where, "final_norm"], EPSILON)

  @jax.jit
  def values(model):
    residual, taps = run(surgery.tap(model, ["z[:]"]), IDS, ROWS.segment_ids)
    return apply_final_norm(model, residual)[0], taps

  for a, b in zip(*map(jax.tree.leaves, (values(model), values(scoped)))):
    np.testing.assert_array_equal(a, b)
  split = values(rule_scope(model, places("1"), EPSILON))
  for a, b in zip(*map(jax.tree.leaves, (values(model), split))):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


_SITES = (
  *("attn_in", "query", "key", "value", "pattern", "z", "attn_proj"),
  *("attn_write", "resid_mid", "mlp_in", "mlp_act", "mlp_proj", "mlp_write"),
  "resid_post",
)


def test_it_is_seen_where_it_stands(model):
  scoped = rule_scope(model, ["mlp[0,2]", "z[1]"], GAMMA)
  (block,) = scoped.stack.period
  mlp = block.sublayers[3].delta.sublayers[2]
  attention = block.sublayers[1].delta.sublayers[2]
  assert isinstance(mlp, RuleScope)
  assert (mlp.within, mlp.layers) == (None, (0, 2))
  assert (attention.within, attention.layers) == ("z", (1,))
  for shown in (repr(scoped), treescope.render_to_text(scoped)):
    assert shown.count("RuleScope(") == 2
    assert "Gamma(gamma=0.5" in shown
  assert "RuleScope" not in repr(model)


@pz.pytree_dataclass
class ByHand(pz.nn.Layer):
  """A product with the epsilon rule written out."""

  inner: pz.nn.Layer

  def __call__(self, x, /, **side_inputs):
    y = self.inner(x)
    data = y.data_array
    moved = data + jnp.where(data < 0, -0.3, 0.3)
    passed = data * jax.lax.stop_gradient(data / moved)
    return dataclasses.replace(y, data_array=lrp.same_value(data, passed))


def test_relevance_is_that_of_the_same_rule_made_by_hand():
  lm = tiny_lm(CONFIG)
  model = tiny_gemma(lm.config, scan=False)
  scoped = rule_scope(model, "mlp_proj[1]", EPSILON)
  down = scoped.stack.rest[1].sublayers[3].delta.sublayers[2].down
  assert isinstance(down, RuleScope)
  by_hand = (
    pz.select(scoped)
    .at_instances_of(RuleScope)
    .apply(lambda layer: ByHand(layer.inner))
  )
  ours, theirs = found(lm, scoped), found(lm, by_hand)
  assert_same(ours, theirs)
  plain = found(lm, model)
  assert differ(ours[:2], plain[:2])
  # What stands behind the scope is as before.
  np.testing.assert_array_equal(ours[2:], plain[2:])
  # In a scanned stack as well.
  scanned = rule_scope(lm.model, "mlp_proj[1]", EPSILON)
  assert_same(found(lm, scanned), ours)


def test_one_layer_of_a_scan_is_that_layer_alone(lm, model):
  plain = found(lm, model)
  ours = found(lm, rule_scope(model, "block[1]", GAMMA))
  unrolled = tiny_gemma(lm.config, scan=False)
  assert_same(found(lm, rule_scope(unrolled, "block[1]", GAMMA)), ours)
  assert differ(ours[1], plain[1])  # resid_post[0]
  assert_same(ours[2:], plain[2:])


def test_a_block_is_the_sum_of_its_parts(lm, model):
  whole = found(lm, rule_scope(model, "block[:]", EPSILON))
  halves = found(lm, rule_scope(model, ["attn[:]", "mlp[:]"], EPSILON))
  products = ("query[:]", "value[:]", "attn_proj[:]", "mlp_act[:]")
  sites = found(lm, rule_scope(model, [*products, "mlp_proj[:]"], EPSILON))
  branches = found(lm, rule_scope(model, ["resid_mid[:]", "mlp[:]"], EPSILON))
  for other in (halves, sites, branches):
    assert_same(other, whole)
  assert differ(whole, found(lm, model))


def test_a_pattern_has_its_own_rules(lm, model):
  stopped = rule_scope(model, "pattern[:]", {"exp": lrp.Stop()})
  assert_same(found(lm, stopped, lrp.ATTN_LRP), found(lm, model))
  # No softmax stands in z, and no product with weights in either.
  elsewhere = rule_scope(model, "z[:]", {"exp": lrp.Stop()})
  elsewhere = rule_scope(elsewhere, "pattern[:]", EPSILON)
  attn = found(lm, model, lrp.ATTN_LRP)
  assert_same(found(lm, elsewhere, lrp.ATTN_LRP), attn)
  mixed = rule_scope(model, "z[:]", {"product": lrp.Native()})
  assert differ(found(lm, mixed, lrp.ATTN_LRP), attn)


def test_inner_scopes_and_later_ones_win(lm, model):
  expected = found(lm, rule_scope(model, "mlp[1]", GAMMA))
  nested = rule_scope(model, "mlp[1]", GAMMA)
  nested = rule_scope(nested, "resid_post[1]", EPSILON)
  assert_same(found(lm, nested), expected)
  later = rule_scope(rule_scope(model, "mlp[1]", EPSILON), "mlp[1]", GAMMA)
  assert_same(found(lm, later), expected)
  # A part of a layer is inside it, in whatever order they were made.
  half, exact = {"product": lrp.Half()}, {"product": lrp.Native()}
  part = rule_scope(model, "z[1]", exact)
  expected = found(lm, part, lrp.ATTN_LRP)
  for first, last in (("z", "attn"), ("attn", "z")):
    rules = {"z": exact, "attn": half}
    both = rule_scope(model, f"{first}[1]", rules[first])
    both = rule_scope(both, f"{last}[1]", rules[last])
    assert_same(found(lm, both, lrp.ATTN_LRP), expected)


def test_a_table_may_name_places(lm, model):
  table = lrp.CP_LRP.at("mlp[1:]", GAMMA).at(Site("mlp_proj", 1), EPSILON)
  by_hand = rule_scope(model, "mlp[1:]", GAMMA)
  by_hand = rule_scope(by_hand, "mlp_proj[1]", EPSILON)
  assert_same(found(lm, model, table), found(lm, by_hand))


def test_other_surgery_stands_beside_it(lm, model):
  first = surgery.tap(rule_scope(model, "z[1]", GAMMA), ["z[1]", "mlp_in[1]"])
  last = rule_scope(surgery.tap(model, ["z[1]", "mlp_in[1]"]), "z[1]", GAMMA)
  for edited in (first, last):
    _, taps = run(edited, IDS, ROWS.segment_ids)
    assert sorted(map(str, taps)) == ["mlp_in[1]", "z[1]"]
  doubled = surgery.edit(model, "mlp_write[1]", lambda v: v * 2)
  scoped = rule_scope(doubled, ["mlp_write[1]", "resid_post[1]"], EPSILON)
  assert differ(found(lm, scoped), found(lm, doubled))


def test_the_weights_are_found_inside(model):
  scoped = rule_scope(model, places(":"), GAMMA)
  scoped = rule_scope(scoped, "final_norm", GAMMA)
  plain, kept = gemma_to_tensors(model), gemma_to_tensors(scoped)
  assert plain.keys() == kept.keys()
  for name, value in plain.items():
    np.testing.assert_array_equal(kept[name], value)


def test_what_reads_the_final_norm_finds_it(lm, model):
  scoped = rule_scope(model, "final_norm", {"rsqrt": lrp.Stop()})
  lenses = [
    logit_lens(lm.replace(m), " the capital of", target=" Paris")
    for m in (model, scoped)
  ]
  np.testing.assert_array_equal(*[lens.target_probs for lens in lenses])


def test_equal_scopes_compile_once(lm, model):
  def run_once(gamma):
    rules = {"weights": lrp.Gamma(gamma), "exp": lrp.Stop()}
    found(lm, rule_scope(model, "attn[1]", rules))

  run_once(0.25)
  before = relevance._cache_size()
  run_once(0.25)
  assert relevance._cache_size() == before
  run_once(0.75)
  assert relevance._cache_size() == before + 1


def test_names_do_not_depend_on_the_order_of_rules():
  pairs = {"weights": lrp.Gamma(), "exp": lrp.Stop()}
  turned = dict(reversed(pairs.items()))
  model = tiny_gemma(tiny_config(num_layers=1))
  a, b = (rule_scope(model, "mlp[0]", rules) for rules in (pairs, turned))
  assert jax.tree.structure(a) == jax.tree.structure(b)
  name = scope_name((("exp", lrp.Stop()),), "z")
  assert name == "rules[z]{'exp': Stop(own=False)}"


@pytest.mark.parametrize(
  ("where", "match"),
  [
    ("attn[9]", r"The model has 3 layers.*\n.*attn\[9\]"),
    ("mlp", r"its own mlp; say which.*\n.*\n.*mlp\[:\]"),
    ("block[a]", r"in brackets is no layer"),
    ("embed", r"No layer of the model computes this site.*\n.*embed\n.*block"),
    ("resid_pre[2]", r"No layer of the model computes"),
    ("logits", r"No layer of the model computes"),
    ("feedforward[2]", r"feedforward"),
  ],
)
def test_places_that_are_none_are_refused(model, where, match):
  with pytest.raises(errors.SiteError, match=match):
    rule_scope(model, where, GAMMA)


@pytest.mark.parametrize(
  "rules",
  [
    {},
    {"weights": "gamma"},
    {"weights": lrp.Gamma},
    {"a/b": lrp.Stop()},
    {3: lrp.Stop()},
    {"weights": lrp.Epsilon(np.float32(0.1))},
  ],
)
def test_rules_that_are_none_are_refused(model, rules):
  with pytest.raises(errors.ConfigError, match="needs rules by the kind"):
    rule_scope(model, "mlp[1]", rules)
