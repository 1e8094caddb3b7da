"""Every operation conserves relevance under CP_LRP, or refuses: never less.

The functions here are small and meant to do harm: each hides something that
relevance does not survive, or looks as if it did.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gemma_scope.attribution import lrp
from tests.attribution.checks import (
  assert_conserves,
  assert_same_bits,
  identity_for,
  relevance,
  total,
)

X = 1.5 * jax.random.normal(jax.random.key(0), (4, 6))
W = jax.random.normal(jax.random.key(1), (6, 6))
TABLES = (lrp.CP_LRP, lrp.LRP_GAMMA)
CAUSAL = np.tril(np.ones((4, 4), bool))


def rms(x):
  return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6)


def layer_norm(x):
  mean = x.mean(axis=-1, keepdims=True)
  return (x - mean) / jnp.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)


def attention(x, masked=-jnp.inf):
  scores = jnp.where(CAUSAL, rms(x @ W) @ x.T, masked)
  return jax.nn.softmax(scores, axis=-1) @ x


def online_softmax(x):
  """Attention over keys one by one, as flash attention does."""

  def step(carry, key):
    top, norm, mixed = carry
    scores = x @ W @ key
    new = jnp.maximum(top, scores)
    weight, old = jnp.exp(scores - new), jnp.exp(top - new)
    mixed = mixed * old[:, None] + weight[:, None] * key[None]
    return (new, norm * old + weight, mixed), None

  start = (jnp.full(4, -jnp.inf), jnp.zeros(4), jnp.zeros((4, 6)))
  (_, norm, mixed), _ = jax.lax.scan(step, start, x)
  return mixed / norm[:, None]


CONSERVING = {
  "rms": lambda x: rms(x) @ W,
  "layer_norm": lambda x: layer_norm(x) @ W,
  "jnp_var": lambda x: jnp.var(x, axis=0, ddof=1),
  "normalised": lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True),
  "normalised_safely": lambda x: x / jnp.maximum(jnp.linalg.norm(x), 1e-6),
  "clipped_variance": lambda x: x * jax.lax.rsqrt(jnp.maximum(x.var(), 1e-9)),
  "cosine": lambda x: x[0] @ x[1] / jnp.linalg.norm(x[0]),
  "attention": attention,
  "attention_large": lambda x: attention(x, -1e30),
  "attention_soft_cap": lambda x: jax.nn.softmax(3 * jnp.tanh(x @ x.T / 3)) @ x,
  "online_softmax": online_softmax,
  "jax_attention": lambda x: jax.nn.dot_product_attention(
    x[None, :, None], x[None, :, None], x[None, :, None], is_causal=True
  ),
  "gelu": lambda x: jax.nn.gelu(x @ W),
  "gelu_exact": lambda x: jax.nn.gelu(x @ W, approximate=False),
  "silu": lambda x: jax.nn.silu(x @ W),
  "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
  "mish": jax.nn.mish,
  "hard_swish": jax.nn.hard_swish,
  "swiglu": lambda x: jax.nn.silu(x @ W) * (x @ W.T),
  "relu": lambda x: jax.nn.relu(x @ W),
  "relu_squared": lambda x: jax.nn.relu(x @ W) ** 2,
  "leaky_relu": lambda x: jax.nn.leaky_relu(x @ W),
  "jump_relu": lambda x: x * (x > 0.3),
  "top_mask": lambda x: jnp.where(x >= x.max(axis=-1, keepdims=True), x, 0),
  "abs": jnp.abs,
  "sign_by_where": lambda x: jnp.where(x > 0, x, -x),
  "max_of_two": lambda x: jnp.maximum(x, x @ W),
  "max_pool": lambda x: x.max(axis=0),
  "cube": lambda x: x * x * x,
  "integer_power": lambda x: x**3,
  "three_operands": lambda x: jnp.einsum("ab,cb,cd->ad", x, x, x),
  "outer": lambda x: jnp.outer(x[0], x[1]),
  "cumsum": lambda x: jnp.cumsum(x, axis=0) @ W,
  "take": lambda x: jnp.take(x, jnp.array([1, 3, 3]), axis=0),
  "argsort_gather": lambda x: jnp.take_along_axis(
    x, jnp.argsort(x, axis=-1)[:, :2], axis=-1
  ),
  "argmax_gather": lambda x: x[jnp.arange(4), jnp.argmax(x, axis=-1)],
  "segment_sum": lambda x: jax.ops.segment_sum(x, jnp.array([0, 1, 0, 1]), 2),
  "convolution": lambda x: jnp.convolve(x[0], W[0]),
  "update": lambda x: x.at[0].add(x[1]).at[2].set(x[3] * 2),
  "finite_only": lambda x: jnp.where(jnp.isfinite(x), x, 0),
  "associative_scan": lambda x: jax.lax.associative_scan(jnp.add, x),
  "gradient_inside": jax.grad(lambda x: (x**3).sum()),
  "pad_concat_split": lambda x: jnp.concatenate(
    [jnp.pad(x, 1)[1:], *jnp.split(jnp.tile(x, (1, 2)), 3, axis=1)[:1] * 0],
  ),
}


@pytest.mark.parametrize("name", CONSERVING)
def test_relevance_is_conserved(name):
  f = CONSERVING[name]
  readout = jax.random.normal(jax.random.key(2), jax.eval_shape(f, X).shape)

  def scalar(x):
    return (f(x) * readout).sum()

  for table in TABLES:
    assert_conserves(scalar, X, table)
    ruled = lrp.transform(f, table)
    assert_same_bits(jax.jit(ruled)(X), jax.jit(f)(X))


# name -> (function, what the error says, where, the remedy)
REFUSED = {
  "sin": (jnp.sin, "`sin`", "sin at", '{"sin": lrp.Identity()}'),
  "sort": (jnp.sort, "`sort`", "sort at", '{"sort": lrp.Native()}'),
  "median": (jnp.median, "`sort`", "sort at", '{"sort": lrp.Native()}'),
  "cummax": (
    lambda x: jax.lax.cummax(x),
    "`cummax`",
    "cummax at",
    '{"cummax": lrp.Native()}',
  ),
  "top_k": (
    lambda x: jax.lax.top_k(x, 2)[0],
    "`top_k`",
    "top_k at",
    '{"top_k": lrp.Native()}',
  ),
  "while": (
    lambda x: jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: x + 1, x),
    "while loop",
    "while at",
    "jax.lax.scan",
  ),
  "exp": (jnp.exp, "constant reaches the", "exp at", '{"exp": lrp.Identity()}'),
  "tanh_mlp": (
    lambda x: jnp.tanh(x @ W) @ W,
    "constant enters a matrix product",
    "tanh at",
    '{"tanh": lrp.Identity()}',
  ),
  "gate": (
    lambda x: jax.nn.sigmoid(x @ W) * x,
    "gates another value than its own input",
    "logistic at",
    '{"logistic": lrp.Identity()}',
  ),
  "glu": (jax.nn.glu, "gates another", "logistic at", "lrp.Identity"),
  "soft_cap": (
    lambda x: 3 * jnp.tanh(x @ W / 3),
    "reaches the result",
    "tanh at",
    '{"tanh": lrp.Identity()}',
  ),
  "moved_share": (
    lambda x: jax.nn.sigmoid(x)[::-1] * x,
    "gates another",
    "logistic at",
    "lrp.Identity",
  ),
  "frozen_result": (
    lambda x: jax.lax.rsqrt(jnp.mean(x * x)),
    "reaches the result",
    "rsqrt at",
    '{"rsqrt": lrp.Identity()}',
  ),
  "norm": (jnp.linalg.norm, "reaches the result", "sqrt at", "lrp.Identity"),
  "std": (jnp.std, "reaches the result", "sqrt at", "lrp.Identity"),
  "frozen_added": (
    lambda x: x + jax.lax.rsqrt(jnp.mean(x * x)),
    "combined with an active value",
    "rsqrt at",
    "lrp.Identity",
  ),
  "frozen_concatenated": (
    lambda x: jnp.concatenate([x, jnp.exp(x)]),
    "combined with an active value",
    "exp at",
    "lrp.Identity",
  ),
  "frozen_maximum": (
    lambda x: jnp.maximum(x, jnp.exp(x)),
    "combined with an active value",
    "exp at",
    "lrp.Identity",
  ),
  "frozen_numerator": (
    lambda x: jnp.exp(x) / (x @ W),
    "divided by an active value",
    "exp at",
    "lrp.Identity",
  ),
  "frozen_projected_gate": (
    lambda x: (jnp.exp(x) @ W) * x,
    "enters a matrix product",
    "exp at",
    "lrp.Identity",
  ),
  "frozen_exponent": (
    lambda x: jnp.power(jnp.abs(x), jnp.exp(x)),
    "meets an active value",
    "exp at",
    "lrp.Identity",
  ),
  "quotient": (
    lambda x: x / (x @ W),
    "denominator is active",
    "div at",
    '{"quotient": lrp.Stop()}',
  ),
  "reciprocal": (lambda x: 1 / x, "denominator", "div at", "lrp.Stop()"),
  "l1": (lambda x: x / jnp.abs(x).sum(), "denominator", "div at", "lrp.Stop()"),
  "logsumexp": (jax.nn.logsumexp, "reaches the result", "exp at", "lrp."),
  "log_softmax": (jax.nn.log_softmax, "combined with", "exp at", "lrp."),
  "softplus": (jax.nn.softplus, "combined with", "exp at", "lrp."),
  "elu": (jax.nn.elu, "`expm1`", "expm1 at", '{"expm1": lrp.Identity()}'),
  "float_power": (
    lambda x: x**2.5,
    "`pow`",
    "pow at",
    '{"pow": lrp.Identity()',
  ),
  "inverse_power": (lambda x: x**-2, "`integer_pow`", "integer_pow at", "lrp."),
  "product_of_all": (jnp.prod, "`reduce_prod`", "reduce_prod at", "strict=Fal"),
  "fft": (lambda x: jnp.fft.fft(x).real, "`fft`", "fft at", "strict=False"),
  "clip": (
    lambda x: jnp.clip(x, -1, 1),
    "reaches the result",
    "clip at",
    '{"clip": lrp.Identity()}',
  ),
  "clamp": (
    lambda x: jax.lax.clamp(-1.0, x, 1.0),
    "reaches",
    "clip at",
    "lrp.",
  ),
  "relu6": (jax.nn.relu6, "reaches the result", "clip at", "lrp.Identity"),
  "clip_by_where": (
    lambda x: jnp.where(x > 1, 1.0, x),
    "reaches the result",
    "clip at",
    "lrp.Identity",
  ),
  "step": (
    lambda x: jnp.where(x > 0, 1.0, 0.0),
    "a choice that depends on the input reaches",
    "gt at",
    "stop_gradient",
  ),
  "step_added": (
    lambda x: x + (x > 0),
    "a choice that depends on the input is combined",
    "gt at",
    "stop_gradient",
  ),
  "rounded": (
    lambda x: x.astype(jnp.int32) * 1.0,
    "a choice",
    "convert",
    "stop",
  ),
  "one_hot": (
    lambda x: jax.nn.one_hot(jnp.argmax(x, axis=-1), 6) @ W,
    "a choice that depends on the input enters a matrix product",
    "argmax at",
    "stop_gradient",
  ),
  "looked_up": (
    lambda x: W[jnp.argmax(x, axis=-1)],
    "a choice that depends on the input reaches",
    "argmax at",
    "stop_gradient",
  ),
  "sign": (jnp.sign, "`sign`", "sign at", '{"sign": lrp.Identity()}'),
  "floor": (jnp.floor, "`floor`", "floor at", '{"floor": lrp.Identity()}'),
  "scaled_rows": (
    lambda x: x.at[0].multiply(3.0),
    "`scatter-mul`",
    "scatter-mul at",
    "strict=False",
  ),
  "inverse": (
    lambda x: jnp.linalg.inv(x @ x.T),
    "`custom_linear_solve`",
    "custom_linear_solve at",
    "strict=False",
  ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_relevance_does_not_survive_is_refused(name):
  f, what, where, remedy = REFUSED[name]
  pattern = (
    f"{re.escape(what)}.*\n  received: {re.escape(where)}"
    f".*test_operations.py:[0-9]+.* under CP_LRP\n  instead:.*"
    f"{re.escape(remedy)}"
  )
  with pytest.raises(lrp.RuleError, match=pattern):
    lrp.transform(lambda x: f(x).sum(), lrp.CP_LRP)(X)


STRICT = (lrp.ATTN_LRP, lrp.CP_LRP, lrp.LRP_EPSILON, lrp.LRP_GAMMA)


@pytest.mark.parametrize("rules", STRICT, ids=lambda rules: rules.name)
@pytest.mark.parametrize("name", ["sin", "sort", "cummax", "top_k"])
def test_no_table_of_relevance_is_silent(name, rules):
  f, what, _, remedy = REFUSED[name]
  pattern = (
    f"{re.escape(what)}(.|\n)*under {rules.name}\n(.|\n)*{re.escape(remedy)}"
  )
  for inner in (f, lambda x: f(jnp.cumsum(x @ W, axis=-1))):
    with pytest.raises(lrp.RuleError, match=pattern):
      lrp.transform(lambda x, g=inner: g(x).sum(), rules)(X)


REMEDIES = {
  "sin": "sin",
  "exp": "exp",
  "tanh_mlp": "tanh",
  "gate": "logistic",
  "glu": "logistic",
  "soft_cap": "tanh",
  "norm": "sqrt",
  "clip": "clip",
  "clamp": "clip",
  "relu6": "clip",
  "clip_by_where": "clip",
  "float_power": "pow",
  "inverse_power": "integer_pow",
  "elu": "expm1",
  "reciprocal": "quotient",
  "floor": "floor",
}


@pytest.mark.parametrize("name", REMEDIES)
def test_the_identity_rule_conserves_where_it_is_the_remedy(name):
  table = identity_for(lrp.CP_LRP, REMEDIES[name])
  x = jnp.abs(X) + 0.1 if name == "float_power" else X
  assert_conserves(lambda x: REFUSED[name][0](x).sum(), x, table, 1e-4)


@pytest.mark.parametrize("name", ["sort", "median", "cummax", "top_k"])
def test_native_conserves_where_values_are_picked(name):
  table = lrp.CP_LRP.replace("mine", {name: lrp.Native(), "sort": lrp.Native()})
  assert_conserves(lambda x: REFUSED[name][0](x).sum(), X, table)


def test_a_held_denominator_conserves():
  table = lrp.CP_LRP.replace("mine", {"quotient": lrp.Stop()})
  for name in ("quotient", "l1"):
    assert_conserves(lambda x, n=name: (REFUSED[n][0](x) @ W).sum(), X, table)


def test_what_is_constant_keeps_its_share():
  bias = jnp.linspace(-1.0, 1.0, 6)[None]

  def f(x, bias):
    return (jax.nn.gelu(layer_norm(x) * 1.3 + bias) @ W + bias).sum()

  both = lrp.transform(f, lrp.CP_LRP, argnums=(0, 1))
  to_x = X * jax.grad(lrp.transform(f, lrp.CP_LRP))(X, bias)
  with_bias = jax.grad(both, argnums=(0, 1))(X, bias)
  np.testing.assert_allclose(to_x, X * with_bias[0], rtol=1e-5, atol=1e-6)
  missing = total(bias * with_bias[1])
  assert abs(missing) > 0.1
  np.testing.assert_allclose(total(to_x) + missing, f(X, bias), rtol=1e-4)


@pytest.mark.parametrize(
  "f",
  [
    lambda x: x + jax.lax.stop_gradient(jnp.round(x) - x),
    lambda x: x * jax.lax.stop_gradient(jnp.sin(x)),
    lambda x: x[jax.lax.while_loop(lambda i: i < 2, lambda i: i + 1, 0)],
    lambda x: x * jnp.argsort(x, axis=-1),
    lambda x: x * jax.lax.rsqrt(1 + jnp.var(jnp.sin(x))),
    lambda x: (jnp.sin(x), x)[1],
  ],
)
def test_what_does_not_reach_the_result_needs_no_rule(f):
  found = relevance(lambda x: f(x).sum(), X, lrp.CP_LRP)
  assert np.abs(found).max() > 0.1
