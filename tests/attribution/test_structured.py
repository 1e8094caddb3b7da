"""Activity through programs inside programs, which stay what they are."""

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
import numpy as np
import pytest

from gemma_scope.attribution import jaxprs, lrp
from tests.attribution.checks import (
  assert_conserves,
  assert_same_bits,
  relevance,
  total,
)

X = 1.5 * jax.random.normal(jax.random.key(0), (4, 6))
W = 0.5 * jax.random.normal(jax.random.key(1), (6, 6))


def block(x):
  """Norm, gated feed-forward, residual."""
  h = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6)
  return x + jax.nn.gelu(h @ W) * (h @ W.T)


def plain(x):
  return block(block(block(x))).sum()


@jax.custom_vjp
def with_own_vjp(x):
  return block(x)


with_own_vjp.defvjp(lambda x: (block(x), None), lambda _, g: (0 * g,))


@jax.custom_jvp
def with_own_jvp(x):
  return block(x)


with_own_jvp.defjvp(lambda x, t: (block(x[0]), 0 * t[0]))


def scanned(x, wrapped=block, **options):
  return jax.lax.scan(
    lambda c, _: (wrapped(c), None), x, None, length=3, **options
  )[0].sum()


def repeated(wrapped):
  return lambda x: wrapped(wrapped(wrapped(x))).sum()


STRUCTURES = {
  "jit": repeated(jax.jit(block)),
  "remat": repeated(jax.checkpoint(block)),
  "custom_jvp": repeated(with_own_jvp),
  "custom_vjp": repeated(with_own_vjp),
  "scan": scanned,
  "scan_reversed": lambda x: scanned(x, reverse=True, unroll=3),
  "scan_of_remat": lambda x: scanned(x, jax.checkpoint(block)),
  "scan_of_jit": lambda x: scanned(x, jax.jit(block)),
  "fori_loop": lambda x: jax.lax.fori_loop(
    0, 3, lambda _, c: block(c), x
  ).sum(),
  "map": lambda x: jax.lax.map(lambda row: block(block(block(row))), x).sum(),
  "vmap": lambda x: jax.vmap(lambda row: plain(row[None]))(x).sum(),
  "cond": lambda x: jax.lax.cond(x[0, 0] > -9, plain, jnp.sum, x),
  "switch": lambda x: jax.lax.switch(1, [jnp.sum, plain, jnp.min], x),
  "scan_over_rows": lambda x: jax.lax.scan(
    lambda c, row: (c + plain(row[None]), None), 0.0, x
  )[0],
}


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize(
  "rules", [lrp.CP_LRP, lrp.ATTN_LRP], ids=lambda r: r.name
)
def test_structure_changes_no_relevance(name, rules):
  f = STRUCTURES[name]
  expected = relevance(plain, X, rules)
  np.testing.assert_allclose(
    relevance(f, X, rules), expected, rtol=1e-4, atol=1e-5
  )
  assert_same_bits(lrp.transform(f, rules)(X), f(X))


@pytest.mark.parametrize(
  ("f", "name"),
  [
    (scanned, "scan"),
    (repeated(jax.checkpoint(block)), "remat2"),
    (STRUCTURES["cond"], "cond"),
    (repeated(jax.jit(block)), "jit"),
  ],
)
def test_structure_stays(f, name):
  before = [e.primitive.name for e in jax.make_jaxpr(f)(X).eqns]
  after = jax.make_jaxpr(lrp.transform(f, lrp.CP_LRP))(X)
  names = [e.primitive.name for e in after.eqns]
  assert before.count(name) == names.count(name) > 0


def test_equal_uses_of_a_jitted_program_are_emitted_once():
  f = repeated(jax.jit(lambda x: block(x)))
  program = jax.make_jaxpr(lrp.transform(f, lrp.CP_LRP))(X)
  inner = [e.params["jaxpr"] for e in program.eqns if e.primitive.name == "jit"]
  assert len(inner) == 3
  assert inner[0] is inner[1] is inner[2]


def test_a_share_belongs_to_its_input_across_a_jitted_border():
  gate = jax.jit(lambda x: jax.nn.sigmoid(x))
  assert_conserves(lambda x: (x * gate(x)).sum(), X, lrp.CP_LRP)
  # Two uses of one program share no origins.
  scale = jax.jit(lambda x: x * 1.5)
  with pytest.raises(lrp.RuleError, match="gates another value"):
    lrp.transform(
      lambda x: (scale(x[::-1]) * jax.nn.sigmoid(scale(x))).sum(), lrp.CP_LRP
    )(X)


def test_a_share_belongs_to_its_rows_in_a_scan():
  def f(x):
    def step(carry, rows):
      row, gate = rows
      return carry + row * gate, (row * 2, jax.nn.sigmoid(row))

    total, (doubled, gates) = jax.lax.scan(
      step, jnp.zeros(6), (x, jax.nn.sigmoid(x))
    )
    return (doubled * gates).sum() + total.sum()

  assert_conserves(f, X, lrp.CP_LRP)


def test_a_share_of_a_round_is_none_of_the_next():
  def f(x):
    gate = jax.nn.sigmoid(x)
    step = lambda c, _: (c * gate + x, None)  # noqa: E731
    return jax.lax.scan(step, x, None, length=2)[0].sum()

  with pytest.raises(lrp.RuleError, match="gates another value"):
    lrp.transform(f, lrp.CP_LRP)(X)


def test_carried_values_wake_up_in_later_rounds():
  def f(x):
    def step(carry, _):
      a, b, c = carry
      return (x.sum(0) + a, a * 2, b @ W), c.sum()

    zeros = (jnp.zeros(6), jnp.zeros(6), jnp.zeros(6))
    carry, seen = jax.lax.scan(step, zeros, None, length=5)
    return sum(part.sum() for part in carry) + seen.sum()

  assert_conserves(f, X, lrp.CP_LRP)
  assert_conserves(f, X, lrp.LRP_EPSILON, 1e-4)


def test_carried_factors_stay_held():
  def f(x):
    def step(norm, row):
      return norm + jnp.exp(row), None

    norm, _ = jax.lax.scan(step, jnp.zeros(6), x)
    return (x / norm[None]).sum()

  assert_conserves(f, X, lrp.CP_LRP)
  with pytest.raises(lrp.RuleError, match="carried by a scan"):
    lrp.transform(
      lambda x: jax.lax.scan(lambda c, r: (jnp.exp(r), c), x[0], x)[1].sum(),
      lrp.CP_LRP,
    )(X)


def test_faults_leave_every_structure():
  for wrap in (jax.jit, jax.checkpoint, jax.vmap, lambda f: f):
    with pytest.raises(lrp.RuleError, match=r"sin at .*test_structured\.py"):
      lrp.transform(lambda x, w=wrap: w(jnp.sin)(x).sum(), lrp.CP_LRP)(X)
  for f in (
    lambda x: jax.lax.scan(lambda c, r: (c + jnp.sin(c), r), x[0], x)[0],
    lambda x: jax.lax.scan(lambda c, r: (c, jnp.sin(r)), x[0], x)[1],
    lambda x: jax.lax.cond(True, jnp.sin, jnp.negative, x),
  ):
    with pytest.raises(lrp.RuleError, match="`sin`"):
      lrp.transform(lambda x, f=f: f(x).sum(), lrp.CP_LRP)(X)


@pytest.mark.parametrize(
  ("branch", "match"),
  [
    (jnp.exp, "leaves a branch"),
    (lambda _: W[:4], "`cond`"),
    (lambda x: jnp.full_like(x, 2.0), "in the place of an active value"),
  ],
)
def test_a_branch_without_relevance_is_refused(branch, match):
  with pytest.raises(lrp.RuleError, match=match):
    lrp.transform(
      lambda x: jax.lax.cond(x.sum() > 0, jnp.negative, branch, x).sum(),
      lrp.CP_LRP,
    )(X)


def test_branches_of_constants_are_choices():
  def f(x):
    scale = jax.lax.cond(x.sum() > 0, lambda: 2.0, lambda: 3.0)
    return (x * scale).sum()

  assert_conserves(f, X, lrp.CP_LRP)
  with pytest.raises(lrp.RuleError, match="a choice that depends"):
    lrp.transform(
      lambda x: jax.lax.cond(x.sum() > 0, lambda: 2.0, lambda: 3.0), lrp.CP_LRP
    )(X)
  zero = lambda x: jnp.zeros_like(x)  # noqa: E731
  g = lambda x: jax.lax.cond(x.sum() > -99, lambda x: x, zero, x).sum()  # noqa: E731
  assert_conserves(g, X, lrp.CP_LRP)


def test_a_rule_that_the_function_brings_is_kept():
  def mine(x):
    return lrp.same_value(jnp.sin(x), 3 * x)

  for f in (
    mine,
    jax.jit(mine),
    jax.vmap(mine),
    jax.checkpoint(mine),
    lambda x: jax.lax.map(mine, x),
  ):
    found = relevance(lambda x, f=f: f(x).sum(), X, lrp.CP_LRP)
    np.testing.assert_allclose(found, 3 * X, rtol=1e-6)
  held = lambda x: lrp.same_value(x, jnp.exp(x)).sum()  # noqa: E731
  with pytest.raises(lrp.RuleError, match="exp at"):
    lrp.transform(held, lrp.CP_LRP)(X)


def test_another_function_of_that_name_is_no_rule():
  @jax.custom_jvp
  def same_value(value, surrogate):
    return value * 2

  same_value.defjvp(lambda x, t: (x[0] * 2, t[1]))
  found = relevance(lambda x: same_value(x, jnp.sin(x)).sum(), X, lrp.CP_LRP)
  np.testing.assert_allclose(found, 2 * X)


def test_tables_of_gradients_keep_custom_ones():
  f = repeated(with_own_vjp)
  assert np.abs(relevance(f, X, lrp.CP_LRP)).max() > 0.1
  straight = jax.custom_vjp(lambda x: jnp.round(x))
  straight.defvjp(lambda x: (jnp.round(x), None), lambda _, g: (g,))
  found = relevance(lambda x: straight(x).sum(), X, lrp.FROZEN)
  np.testing.assert_array_equal(found, X)
  with pytest.raises(lrp.RuleError, match="`round`"):
    lrp.transform(lambda x: straight(x).sum(), lrp.CP_LRP)(X)


def with_a_derivative(f):
  own = jax.custom_jvp(f)
  own.defjvp(lambda x, t: (f(x[0]), t[0]))
  return own


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
  "wrap",
  [
    jax.jit,
    jax.checkpoint,
    jax.vmap,
    with_a_derivative,
    lambda f: lambda x: jax.lax.map(f, x),
    lambda f: lambda x: jax.lax.cond(True, f, f, x),
    lambda f: jax.jit(lambda x: jax.lax.map(jax.jit(f), x)),
  ],
)
def test_named_scopes_reach_inside(wrap, compiled):
  def inside(x):
    with jax.named_scope("mlp"):
      return jnp.tanh(x)

  def f(x):
    with jax.named_scope("block_2"):
      return wrap(inside)(x).sum()

  f = jax.jit(f) if compiled else f
  table = lrp.CP_LRP.within("block_2/mlp", {"tanh": lrp.Identity()})
  assert_conserves(f, X, table)
  other = lrp.CP_LRP.within("block_1/mlp", {"tanh": lrp.Identity()})
  with pytest.raises(lrp.RuleError, match="tanh"):
    lrp.transform(f, other)(X)


MESH = ("data", "model")


def tensor_parallel(x, first, second):
  hidden = jax.nn.gelu(x @ first)
  return jax.lax.psum(
    jax.lax.scan(
      lambda c, _: (c + jax.jit(jax.nn.silu)(c), None), hidden, None, length=2
    )[0]
    @ second,
    "model",
  )


@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize(
  "rules", [lrp.CP_LRP, lrp.LRP_EPSILON], ids=lambda r: r.name
)
def test_shard_map_inside(check_vma, rules):
  mesh = Mesh(np.array(jax.devices()).reshape(4, 2), MESH)
  specs = (P("data"), P(None, "model"), P("model"))

  def sharded(x):
    run = jax.shard_map(
      tensor_parallel,
      mesh=mesh,
      in_specs=specs,
      out_specs=P("data"),
      check_vma=check_vma,
    )
    return run(x, W, W.T).sum()

  def whole(x):
    c = jax.nn.gelu(x @ W)
    for _ in range(2):
      c = c + jax.nn.silu(c)
    return (c @ W.T).sum()

  found = relevance(sharded, X, rules)
  expected = relevance(whole, X, rules)
  # Each part of the second product has a denominator of its own.
  np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
  np.testing.assert_allclose(total(found), sharded(X), rtol=1e-4)
  ruled = lrp.transform(sharded, rules)
  assert_same_bits(jax.jit(ruled)(X), jax.jit(sharded)(X))
  names = [e.primitive.name for e in jax.make_jaxpr(ruled)(X).eqns]
  assert "shard_map" in names


def test_shard_map_outside():
  mesh = Mesh(np.array(jax.devices()[:4]), ("data",))

  def each(x):
    run = jax.shard_map(
      lrp.transform(lambda x: block(block(x)), lrp.CP_LRP),
      mesh=mesh,
      in_specs=P("data"),
      out_specs=P("data"),
    )
    return run(x).sum()

  found = X * jax.jit(jax.grad(each))(X)
  expected = relevance(lambda x: block(block(x)).sum(), X, lrp.CP_LRP)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_while_loop_of_choices_is_run_as_it_is():
  def f(x):
    count = jax.lax.while_loop(
      lambda n: n < jnp.argmax(x[0]), lambda n: n + 1, 0
    )
    return (x * count).sum()

  assert_conserves(f, X, lrp.CP_LRP)


def test_programs_with_effects_run():
  seen = []

  def f(x):
    jax.debug.callback(lambda v: seen.append(float(v)), x.sum())
    return x.sum()

  jax.block_until_ready(lrp.transform(f, lrp.CP_LRP)(X))
  jax.effects_barrier()
  assert len(seen) == 1
  assert {"debug_callback"} <= set(
    jaxprs.primitives(jax.make_jaxpr(lrp.transform(f, lrp.CP_LRP))(X))
  )
