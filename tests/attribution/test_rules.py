"""Every rule against a slow dense double written from its paper's equation.

The doubles look at contributions x_i w_ij one by one: every index of the two
operands spans an axis of one large array. The rules themselves never see a
contribution, only products with changed operands.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gemma_scope import errors
from gemma_scope.attribution import lrp
from tests.attribution.checks import relevance, total

BARE = lrp.RuleTable("BARE", {})
RULES = (
  lrp.Native(),
  lrp.Epsilon(0.3),
  lrp.Epsilon(1e-6),
  lrp.Gamma(0.5),
  lrp.AlphaBeta(2.0, 1.0),
  lrp.AlphaBeta(1.5, 0.5),
  lrp.ZPlus(),
  lrp.WSquare(),
)
LAYOUTS = (
  *("ij,jk->ik", "ji,jk->ik", "ij,kj->ik", "ij,j->i", "i,i->"),
  *("bij,bjk->bik", "ibj,bkj->bik", "ijk,jkl->il", "bijk,kbl->bijl"),
)
SIZES = dict(zip("bijkl", (2, 3, 4, 5, 3)))


def sample(shape, seed):
  return jax.random.normal(jax.random.key(seed), shape)


def divide(a, b):
  """a / b, and 0 where nothing is shared."""
  return np.divide(a, b, out=np.zeros(np.broadcast(a, b).shape), where=b != 0)


def shares(rule, c, w, over):
  """How much of R_j contribution c_ij gets; `over` sums over i."""
  z, up, down = over(c), np.maximum(c, 0), np.minimum(c, 0)
  if isinstance(rule, lrp.Native):  # Bach et al. 2015, eq. 56
    return c / z
  if isinstance(rule, lrp.Epsilon):  # eq. 58
    return c / (z + rule.eps * np.where(z < 0, -1, 1))
  if isinstance(rule, lrp.AlphaBeta):  # eq. 60
    positive, negative = divide(up, over(up)), divide(down, over(down))
    return rule.alpha * positive - rule.beta * negative
  if isinstance(rule, lrp.ZPlus):  # eq. 60 with alpha 1, beta 0
    return divide(up, over(up))
  if isinstance(rule, lrp.Gamma):  # Montavon et al. 2019, table 10.1
    favoured = c + rule.gamma * np.where(z >= 0, up, down)
    return favoured / over(favoured)
  assert isinstance(rule, lrp.WSquare)  # table 10.1
  return w**2 / over(w**2)


def slow(rule, x, w, spec, r):
  """Relevance of x, contribution by contribution, float64."""
  first, second, out = spec.replace("->", ",").split(",")
  letters = sorted({*first, *second})

  def spread(array, own):
    """The array with one axis for each letter."""
    order = [own.index(a) for a in letters if a in own]
    shape = [SIZES[a] if a in own else 1 for a in letters]
    return np.asarray(array, np.float64).transpose(order).reshape(shape)

  def over(terms):
    summed = tuple(i for i, a in enumerate(letters) if a not in out)
    return np.sum(terms, axis=summed, keepdims=True)

  wide = np.broadcast_to(spread(w, second), [SIZES[a] for a in letters])
  shared = shares(rule, spread(x, first) * wide, wide, over) * spread(r, out)
  gone = tuple(i for i, a in enumerate(letters) if a not in first)
  kept = [a for a in letters if a in first]
  return shared.sum(axis=gone).transpose([kept.index(a) for a in first])


def assert_close(found, expected):
  scale = np.abs(expected).max()
  np.testing.assert_allclose(found / scale, expected / scale, atol=2e-5)


def given(y, r):
  """A scalar under which the relevance of y is r."""
  return (y * jax.lax.stop_gradient(r / y)).sum()


@pytest.mark.parametrize("spec", LAYOUTS)
def test_products_with_weights_are_their_papers_equations(spec):
  first, second, out = spec.replace("->", ",").split(",")
  x, w, r = (
    sample([SIZES[a] for a in axes], seed)
    for seed, axes in enumerate((first, second, out))
  )

  def both(pair):
    """The input as the left operand, and as the right one."""
    left = jnp.einsum(spec, pair[0], w)
    right = jnp.einsum(f"{second},{first}->{out}", w, pair[1])
    return given(left, r) + given(right, r)

  for rule in RULES:
    table = BARE.replace("table", {"weights": rule})
    expected = slow(rule, x, w, spec, r)
    for found in relevance(both, (x, x), table):
      assert_close(found, expected)


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_a_convolution_is_the_product_with_its_unrolled_kernel(rule):
  x, kernel = sample((7, 2), 0), sample((3, 2, 4), 1)
  r = sample((5, 4), 2)

  def f(x):
    numbers = ("NWC", "WIO", "NWC")
    y = jax.lax.conv_general_dilated(
      x[None], kernel, (1,), "VALID", dimension_numbers=numbers
    )
    return given(y[0], r)

  unrolled = np.zeros((7, 2, 5, 4))
  for start in range(5):
    unrolled[start : start + 3, :, start] = kernel
  wide = unrolled.reshape(14, 20)
  # Only what the kernel touches contributes, also to sums of squares.
  c = np.asarray(x, np.float64).reshape(14, 1) * wide
  shared = shares(rule, c, wide, lambda t: t.sum(axis=0, keepdims=True))
  expected = (shared * np.asarray(r).reshape(1, 20)).sum(axis=1)
  table = BARE.replace("table", {"weights": rule})
  assert_close(relevance(f, x, table), expected.reshape(7, 2))


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_zero_inputs_and_zero_outputs_stay_finite(rule):
  x = jnp.array([[0.0, 0.0], [1.0, 1.0], [0.0, -2.0]])
  w = jnp.array([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0]])
  table = BARE.replace("table", {"weights": rule})
  found = relevance(lambda x: (x @ w).sum(), x, table)
  assert np.isfinite(found).all()
  np.testing.assert_array_equal(found[0], [0, 0])


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_low_precision_agrees_with_float32(rule, dtype):
  x, w = sample((3, 8), 3), sample((8, 2), 4)
  x, w = x.astype(dtype), w.astype(dtype)
  table = BARE.replace("table", {"weights": rule})
  found = relevance(lambda x: (x @ w).sum(), x, table)
  assert found.dtype == dtype
  x, w = x.astype(jnp.float32), w.astype(jnp.float32)
  expected = relevance(lambda x: (x @ w).sum(), x, table)
  scale = np.abs(expected).max()
  np.testing.assert_allclose(
    np.asarray(found, np.float32), expected, atol=0.05 * scale
  )


@pytest.mark.parametrize(
  "function", [jnp.tanh, jnp.sin, jnp.exp, jax.nn.sigmoid, jnp.log1p]
)
def test_identity_passes_all_relevance(function):
  x = jnp.abs(sample((6,), 5)) + 0.1
  r = sample((6,), 6)
  (name,) = (e.primitive.name for e in jax.make_jaxpr(function)(x).eqns)
  table = BARE.replace("table", {name: lrp.Identity()})
  found = relevance(lambda x: given(function(x), r), x, table)
  np.testing.assert_allclose(found, r, rtol=1e-5)


def test_half_shares_a_product_between_its_factors():
  a, b, r = sample((3, 4), 0), sample((4, 2), 1), sample((3, 2), 2)
  table = BARE.replace("table", {"product": lrp.Half()})
  found = relevance(lambda p: given(p[0] @ p[1], r), (a, b), table)
  a64, b64, r64 = (np.asarray(v, np.float64) for v in (a, b, r))
  # AttnLRP, eq. 14: each of two factors gets half of every contribution.
  c = a64[:, :, None] * b64[None] / (a64 @ b64)[:, None] * r64[:, None] / 2
  assert_close(found[0], c.sum(axis=2))
  assert_close(found[1], c.sum(axis=0))
  elementwise = relevance(lambda p: given(p[0] * p[1], r), (r, a[:, :2]), table)
  assert_close(elementwise[0], np.asarray(r) / 2)
  assert_close(elementwise[1], np.asarray(r) / 2)


@pytest.mark.parametrize("power", [1, 2, 3, 5])
def test_a_power_is_a_product_of_equal_factors(power):
  x, r = sample((4,), 0), sample((4,), 1)
  table = BARE.replace("table", {"product": lrp.Half()})
  assert_close(relevance(lambda x: given(x**power, r), x, table), np.asarray(r))


def test_stop_holds_a_factor_constant():
  x = sample((5,), 0)
  table = BARE.replace("table", {"rsqrt": lrp.Stop(), "product": lrp.Half()})
  scale = 1 / np.sqrt(np.mean(np.asarray(x, np.float64) ** 2))
  found = relevance(
    lambda x: (x * jax.lax.rsqrt(jnp.mean(x * x))).sum(), x, table
  )
  assert_close(found, np.asarray(x) * scale)


def test_softmax_is_its_papers_equation():
  x, r = sample((3, 5), 0), sample((3, 5), 1)
  table = BARE.replace(
    "table", {"exp": lrp.Softmax(), "reduce_max": lrp.Native()}
  )
  found = relevance(lambda x: given(jax.nn.softmax(x), r), x, table)
  x64, r64 = np.asarray(x, np.float64), np.asarray(r, np.float64)
  s = np.exp(x64) / np.exp(x64).sum(-1, keepdims=True)
  # AttnLRP, eq. 13.
  expected = x64 * (r64 - s * r64.sum(-1, keepdims=True))
  assert_close(found, expected)


def test_a_quotient_with_a_held_denominator_passes_to_its_numerator():
  x, w = sample((4,), 0), jnp.abs(sample((4,), 1))
  table = BARE.replace("table", {"quotient": lrp.Stop()})
  found = relevance(lambda x: (x / (x @ w)).sum(), x, table)
  assert_close(found, np.asarray(x) / float(x @ w))
  one = BARE.replace("table", {"quotient": lrp.Identity()})
  found = relevance(lambda x: (3.0 / x).sum(), x, one)
  assert_close(found, 3.0 / np.asarray(x))


def test_every_conserving_rule_conserves():
  x, w = sample((3, 8), 0), sample((8, 4), 1)
  for rule in (lrp.Native(), lrp.Epsilon(1e-9), lrp.Gamma(), lrp.WSquare()):
    table = BARE.replace("table", {"weights": rule})
    found = relevance(lambda x: (x @ w).sum(), x, table)
    np.testing.assert_allclose(total(found), (x @ w).sum(), rtol=1e-4)


@pytest.mark.parametrize(
  ("alpha", "beta"), [(1.0, 1.0), (2.0, 0.5), (0.5, -0.5)]
)
def test_alpha_and_beta_differ_by_one(alpha, beta):
  with pytest.raises(errors.ConfigError, match=f"alpha={alpha}, beta={beta}"):
    lrp.AlphaBeta(alpha, beta)


@dataclasses.dataclass(frozen=True)
class PositiveParts:
  """A product rule that the library does not know."""

  def product(self, f, x, w, y):
    up = f(jnp.maximum(x, 0), jnp.maximum(w, 0))
    up += f(jnp.minimum(x, 0), jnp.minimum(w, 0))
    return lrp.same_value(y, up * jax.lax.stop_gradient(y / up))


@dataclasses.dataclass(frozen=True)
class Twice:
  """An elementwise rule that the library does not know."""

  def unary(self, x, y):
    return lrp.same_value(y, 2 * x * jax.lax.stop_gradient(y / x))


def test_rules_of_ones_own():
  w = jnp.asarray([[1.0, -2.0], [3.0, 4.0], [-5.0, 6.0]])
  v = jnp.asarray([1.0, 2.0, 3.0])

  def f(v):
    return jnp.tanh((v @ w)[1] / 24)

  table = lrp.CP_LRP.replace(
    "mine", {"weights": PositiveParts(), "tanh": Twice()}
  )
  assert isinstance(PositiveParts(), lrp.ProductRule)
  assert not isinstance(lrp.Half(), lrp.ProductRule)
  ruled = lrp.transform(f, table)
  np.testing.assert_array_equal(ruled(v), f(v))
  # 8 and 18 of 26 push up; the sum of 24 and tanh(1), twice, are shared so.
  expected = 2 * np.tanh(1) * np.asarray([0, 8, 18]) / 26
  np.testing.assert_allclose(v * jax.grad(ruled)(v), expected, rtol=1e-5)
