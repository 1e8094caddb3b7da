"""The transform on whole models: exact forwards, conservation, arguments."""

import functools

from flax import nnx
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import numpy as np
import pytest

from gemma_scope import errors
from gemma_scope.attribution import lrp
from tests.attribution.checks import (
  assert_conserves,
  assert_same_bits,
  relevance,
  total,
)

WIDTH, HEADS, DEPTH = 8, 2, 2
SMALL = lrp.LRP_EPSILON.replace("SMALL", {"weights": lrp.Epsilon(1e-9)})
NAMES = {"ids": lambda table: table.name}


SHAPES = {
  "query": (WIDTH, HEADS, 4),
  "key": (WIDTH, 1, 4),
  "value": (WIDTH, 1, 4),
  "output": (HEADS, 4, WIDTH),
  "gate": (WIDTH, 12),
  "up": (WIDTH, 12),
  "down": (12, WIDTH),
  "scales": (4, WIDTH),
}
RNG = np.random.default_rng(0)
WEIGHTS = {
  name: (0.4 * RNG.standard_normal((DEPTH, *shape))).astype(np.float32)
  for name, shape in SHAPES.items()
}


def parameters(dtype):
  """Weights of all blocks, stacked."""
  return {name: jnp.asarray(w, dtype) for name, w in WEIGHTS.items()}


def rms_norm(x, scale=0.0):
  wide = x.astype(jnp.float32)
  mean = jnp.mean(wide * wide, axis=-1, keepdims=True)
  gain = 1.0 + jnp.asarray(scale, jnp.float32)
  gain = gain.reshape((1,) * (x.ndim - gain.ndim) + gain.shape)
  return (wide * jax.lax.rsqrt(mean + 1e-6) * gain).astype(x.dtype)


def block(x, p):
  """A decoder layer of Gemma 3's kind, [seq, width]."""
  h = rms_norm(x, p["scales"][0])
  query = rms_norm(jnp.einsum("td,dhk->thk", h, p["query"]))
  key = rms_norm(jnp.einsum("td,dhk->thk", h, p["key"]))
  value = jnp.einsum("td,dhk->thk", h, p["value"])
  scores = jnp.einsum("thk,sjk->hts", query, key).astype(jnp.float32)
  causal = jnp.tril(jnp.ones(scores.shape[1:], bool))[None]
  pattern = jax.nn.softmax(jnp.where(causal, scores, -1e30)).astype(x.dtype)
  z = jnp.einsum("hts,sjk->thk", pattern, value)
  write = jnp.einsum("thk,hkd->td", z, p["output"])
  x = x + rms_norm(write, p["scales"][1])
  h = rms_norm(x, p["scales"][2])
  hidden = jax.nn.gelu(h @ p["gate"]) * (h @ p["up"])
  return x + rms_norm(hidden @ p["down"], p["scales"][3])


def head(x):
  readout = jnp.linspace(-1, 1, WIDTH).astype(x.dtype)
  return rms_norm(x)[-1] @ readout


def unrolled(x):
  p = parameters(x.dtype)
  for i in range(DEPTH):
    x = block(x, jax.tree.map(lambda w, i=i: w[i], p))
  return head(x)


def scanned(x):
  """The same, every layer inside a scan, remat and jit."""

  def step(x, p):
    return jax.checkpoint(jax.jit(block))(x, p), None

  return head(jax.lax.scan(step, x, parameters(x.dtype))[0])


X = jax.random.normal(jax.random.key(1), (5, WIDTH))
BATCH = jax.random.normal(jax.random.key(2), (8, 5, WIDTH))


@pytest.mark.parametrize(
  ("rules", "dtype"),
  [
    (lrp.ATTN_LRP, jnp.float32),
    (lrp.ATTN_LRP, jnp.bfloat16),
    (lrp.CP_LRP, jnp.float32),
    (lrp.LRP_EPSILON, jnp.bfloat16),
    (lrp.LRP_GAMMA, jnp.float32),
    (lrp.LRP_GAMMA, jnp.bfloat16),
    (lrp.FROZEN, jnp.float32),
  ],
)
def test_forward_values_are_the_same_to_the_last_bit(rules, dtype):
  x, batch = X.astype(dtype), BATCH[:3].astype(dtype)
  ruled = lrp.transform(scanned, rules)
  assert_same_bits(ruled(x), scanned(x))
  assert_same_bits(jax.jit(ruled)(x), jax.jit(scanned)(x))
  mapped = jax.jit(jax.vmap(scanned))(batch)
  assert_same_bits(jax.jit(jax.vmap(ruled))(batch), mapped)
  # Inside as well as outside.
  inside = lrp.transform(jax.vmap(scanned), rules)
  assert_same_bits(jax.jit(inside)(batch), mapped)


def test_forward_values_of_an_unrolled_model_are_the_same():
  ruled = lrp.transform(unrolled, lrp.ATTN_LRP)
  assert_same_bits(ruled(X), unrolled(X))
  assert_same_bits(jax.jit(ruled)(X), jax.jit(unrolled)(X))


@pytest.mark.parametrize("rules", [lrp.CP_LRP, SMALL, lrp.LRP_GAMMA], **NAMES)
def test_a_gemma_like_model_conserves(rules):
  found = assert_conserves(unrolled, X, rules)
  np.testing.assert_allclose(
    relevance(scanned, X, rules), found, rtol=1e-3, atol=1e-4
  )


def test_attn_lrp_is_not_conservative_through_softmax():
  found = relevance(unrolled, X, lrp.ATTN_LRP)
  assert abs(total(found) / float(unrolled(X)) - 1) > 0.05


def test_gradients_of_a_mapped_function_are_mapped_gradients():
  ruled = lrp.transform(scanned, lrp.CP_LRP)
  outside = jax.jit(jax.vmap(jax.grad(ruled)))(BATCH)
  inside = lrp.transform(lambda b: jax.vmap(scanned)(b).sum(), lrp.CP_LRP)
  found = jax.jit(jax.grad(inside))(BATCH)
  np.testing.assert_allclose(found, outside, rtol=1e-3, atol=1e-5)
  sums = jnp.sum(BATCH * found, axis=(1, 2))
  expected = jax.vmap(scanned)(BATCH)
  np.testing.assert_allclose(sums, expected, rtol=1e-3, atol=1e-4)


def test_a_sharded_batch_gives_the_same_bits_and_relevance():
  mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("data", "model"))
  rows = NamedSharding(mesh, PartitionSpec("data", None, "model"))
  constraint = NamedSharding(mesh, PartitionSpec("data"))

  def f(batch):
    batch = jax.lax.with_sharding_constraint(batch, constraint)
    return jax.vmap(scanned)(batch)

  ruled = lrp.transform(f, lrp.CP_LRP)
  given = jax.device_put(BATCH, rows)
  expected = jax.jit(f, in_shardings=rows)(given)
  assert_same_bits(jax.jit(ruled, in_shardings=rows)(given), expected)
  found = jax.jit(jax.grad(lambda b: ruled(b).sum()), in_shardings=rows)(given)
  alone = jax.jit(jax.vmap(jax.grad(lrp.transform(scanned, lrp.CP_LRP))))(BATCH)
  np.testing.assert_allclose(found, alone, rtol=1e-3, atol=1e-5)


class Foreign(nnx.Module):
  """A Flax model with layer norm, biases and multi-head attention."""

  def __init__(self, rngs: nnx.Rngs):
    self.norm = nnx.LayerNorm(WIDTH, rngs=rngs)
    self.attention = nnx.MultiHeadAttention(
      HEADS, WIDTH, decode=False, rngs=rngs
    )
    self.up = nnx.Linear(WIDTH, 16, rngs=rngs)
    self.down = nnx.Linear(16, WIDTH, rngs=rngs)

  def __call__(self, x):
    x = x + self.attention(self.norm(x))
    return x + self.down(nnx.silu(self.up(self.norm(x))))


def test_a_flax_model_conserves_with_its_biases():
  model = Foreign(nnx.Rngs(0))
  graph, state = nnx.split(model)
  state = jax.tree.map(
    lambda w: w + 0.3 * jax.random.normal(jax.random.key(3), w.shape), state
  )
  biases, weights = nnx.split_state(
    state, lambda path, _: path[-1] == "bias", ...
  )

  def f(inputs):
    merged = nnx.merge(graph, inputs[1], weights)
    return merged(inputs[0])[0, -1].sum()

  inputs = (BATCH[:1], biases)
  found = assert_conserves(f, inputs, lrp.CP_LRP, 1e-4)
  assert total(found[1]) != 0
  alone = relevance(lambda x: f((x, biases)), BATCH[:1], lrp.CP_LRP)
  np.testing.assert_allclose(alone, found[0], rtol=1e-3, atol=1e-4)
  ruled = lrp.transform(f, lrp.CP_LRP)
  assert_same_bits(jax.jit(ruled)(inputs), jax.jit(f)(inputs))


def test_the_empty_table_is_the_function_itself():
  assert lrp.transform(jnp.sin, lrp.GRADIENT) is jnp.sin


@pytest.mark.parametrize("argnums", [1, -1, (1,), [0, 1], (0, -1)])
def test_attributed_arguments(argnums):
  f = lambda a, b: (a @ b).sum()  # noqa: E731
  a, b = BATCH[0], BATCH[1].T
  ruled = lrp.transform(f, lrp.CP_LRP, argnums=argnums)
  found = jax.grad(ruled, argnums=(0, 1))(a, b)
  share = 0.5 if np.size(argnums) == 2 else 1.0
  np.testing.assert_allclose(total(b * found[1]), share * f(a, b), rtol=1e-4)


@pytest.mark.parametrize("argnums", [2, -3, (0, 5), ()])
def test_attributed_arguments_must_be_there(argnums):
  ruled = lrp.transform(lambda a, b: a + b, lrp.CP_LRP, argnums=argnums)
  with pytest.raises(
    errors.ConfigError, match=r"received: argnums=.* and 2 arg"
  ):
    ruled(1.0, 2.0)


def test_trees_integers_and_constants_pass():
  table = jnp.arange(12.0).reshape(4, 3)

  def f(inputs, ids, scale):
    rows = table[ids] + inputs["offset"]
    return {"sum": (rows * scale).sum(), "ids": ids, "none": None, "one": 1.0}

  ruled = lrp.transform(f, lrp.CP_LRP)
  arguments = ({"offset": jnp.ones((2, 3))}, jnp.array([0, 2]), 2.0)
  found, expected = ruled(*arguments), f(*arguments)
  assert (found.pop("one"), expected.pop("one")) == (1.0, 1.0)
  assert_same_bits(found, expected)
  assert found["none"] is None
  gradient = jax.grad(lambda x: ruled(x, *arguments[1:])["sum"])(arguments[0])
  np.testing.assert_array_equal(gradient["offset"], 2 * np.ones((2, 3)))


def test_python_numbers_and_numpy_arrays_are_inputs():
  ruled = lrp.transform(lambda x: jax.nn.silu(x * 3).sum(), lrp.CP_LRP)
  gradient = jax.grad(ruled)(2.0)
  np.testing.assert_allclose(2.0 * gradient, jax.nn.silu(6.0), rtol=1e-6)
  gradient = jax.grad(ruled)(np.ones(2, np.float32))
  np.testing.assert_allclose(gradient, jax.nn.silu(3.0) * np.ones(2), rtol=1e-6)


def test_an_auxiliary_result_needs_no_rule():
  def f(x):
    return (x @ x.T).sum(), (jnp.sort(x), jnp.exp(x))

  ruled = lrp.transform(f, lrp.CP_LRP, has_aux=True)
  (value, aux), gradient = jax.value_and_grad(ruled, has_aux=True)(X)
  assert_same_bits((value, aux), f(X))
  np.testing.assert_allclose(total(X * gradient), value, rtol=1e-4)
  with pytest.raises(lrp.RuleError, match="`sort`"):
    lrp.transform(f, lrp.CP_LRP)(X)


def test_without_strictness_gradients_are_kept():
  f = lambda x: jnp.sin(x @ x.T).sum() + (x > 0).sum()  # noqa: E731
  with pytest.raises(lrp.RuleError, match="sin"):
    lrp.transform(f, lrp.CP_LRP)(X)
  table = lrp.CP_LRP.replace("mine", {"product": lrp.Native()})
  ruled = lrp.transform(f, table, strict=False)
  np.testing.assert_allclose(jax.grad(ruled)(X), jax.grad(f)(X), rtol=1e-6)


def test_relevance_can_be_differentiated_by_other_arguments():
  def upper(w):
    ruled = lrp.transform(lambda x: jnp.sum((x @ w) ** 2), lrp.CP_LRP)
    return (X * jax.grad(ruled)(X))[0].sum()

  w = jax.random.normal(jax.random.key(4), (WIDTH, 3))
  # The relevance of a row is that row's part of the sum of squares.
  expected = jax.grad(lambda w: jnp.sum((X[0] @ w) ** 2))(w)
  np.testing.assert_allclose(jax.grad(upper)(w), expected, rtol=1e-4)


STEPS = (
  lambda a, b: a @ b.T @ a,
  lambda a, b: a * b,
  lambda a, b: a - 0.5 * b,
  lambda a, b: jnp.maximum(a, b),
  lambda a, b: jnp.where(a > b, a, b[::-1]),
  lambda a, b: rms_norm(a) + b,
  lambda a, b: jax.nn.softmax(a @ b.T) @ a,
  lambda a, b: jax.nn.silu(a) * b,
  lambda a, b: jax.nn.sigmoid(a) * b,
  lambda a, b: a / (1 + jnp.abs(b).sum()),
  lambda a, b: jnp.exp(a - a.max()) * b,
  lambda a, b: jnp.tanh(a) + b,
  lambda a, b: a * jax.lax.rsqrt(1e-3 + jnp.mean(b * b)),
  lambda a, b: jnp.concatenate([a[:2], b[2:]]),
  lambda a, b: a.at[1].set(b[0]),
  lambda a, b: jax.lax.cond(a.sum() > b.sum(), lambda: a, lambda: 2 * b),
  lambda a, b: jax.lax.scan(lambda c, r: (c + r, c * r), a[0], b)[1],
  lambda a, b: a[jnp.argsort(b[:, 0])],
  lambda a, b: jnp.clip(a, -1, 1) * a + b,
  lambda a, b: jnp.cumsum(a, axis=0) + jax.lax.stop_gradient(b) * a,
)


@pytest.mark.parametrize("seed", range(12))
def test_a_random_program_conserves_or_is_refused(seed):
  rng = np.random.default_rng(seed)
  plan = rng.choice(len(STEPS), 5), rng.integers(0, 3, (5, 2))

  def f(x):
    values = [x, jnp.roll(x, 1, axis=1), -x[::-1]]
    for step, (i, j) in zip(*plan):
      value = STEPS[step](values[-1 - i], values[-1 - j])
      values.append(rms_norm(value))
    return values[-1].sum()

  try:
    lrp.transform(f, lrp.CP_LRP)(X)
  except lrp.RuleError:
    return
  assert_conserves(f, X, lrp.CP_LRP, 1e-4)


def test_names_of_the_function_are_kept():
  @functools.cache
  def mine(x):
    """Mine."""
    return x

  ruled = lrp.transform(mine, lrp.CP_LRP)
  assert (ruled.__name__, ruled.__doc__) == ("mine", "Mine.")
