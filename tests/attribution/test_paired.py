"""Every operation under the rescale rule: contributions are complete."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gemma_scope.attribution.deeplift import deep_lift
from gemma_scope.attribution.emission import RuleError

ROWS, WIDTH, HIDDEN = 5, 6, 8
_RNG = np.random.default_rng(0)
X, X0 = _RNG.standard_normal((2, ROWS, WIDTH)).astype(np.float32)
W = _RNG.standard_normal((WIDTH, HIDDEN)).astype(np.float32)
V = _RNG.standard_normal(HIDDEN).astype(np.float32)


def hidden(x):
  return jnp.matmul(x, W)


def out(h):
  return jnp.matmul(h, V).sum()


def exp_over_its_sum(x):
  e = jnp.exp(x)
  return jnp.matmul(e / e.sum(-1, keepdims=True), W[:, 0]).sum()


def exp_over_the_wrong_sum(x):
  """Looks like a softmax: the sum runs over other rows than it divides."""
  e = jnp.exp(x[:, :ROWS])
  return (e / e.sum(0)[:, None] * X[:, :ROWS]).sum()


def scanned(x):
  def body(h, _):
    h = jax.checkpoint(lambda v: jax.nn.gelu(v) * 0.9)(h)
    return h, h.sum()

  h, sums = jax.lax.scan(body, x, None, length=3)
  return h.sum() + (sums**2).sum()


FUNCTIONS = {
  "relu": lambda x: out(jax.nn.relu(hidden(x))),
  "gelu": lambda x: out(jax.nn.gelu(hidden(x))),
  "silu": lambda x: out(jax.nn.silu(hidden(x))),
  "softplus": lambda x: out(jax.nn.softplus(hidden(x))),
  "leaky_relu": lambda x: out(jax.nn.leaky_relu(hidden(x))),
  "elu": lambda x: out(jax.nn.elu(hidden(x))),
  "softmax": lambda x: out(jax.nn.softmax(3 * hidden(x))),
  "softmax_of_all": lambda x: out(jax.nn.softmax(hidden(x), axis=(0, 1))),
  "masked": lambda x: out(
    jax.nn.softmax(jnp.where(W[:ROWS] > 0, hidden(x), -1e30))
  ),
  "exp_over_its_sum": exp_over_its_sum,
  "exp_over_the_wrong_sum": exp_over_the_wrong_sum,
  "attention": lambda x: out(hidden(jax.nn.softmax(x @ x.T) @ x)),
  "norm": lambda x: out(
    hidden(x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-6))
  ),
  "quotient": lambda x: (x[:, 0] / (3 + x[:, 1] ** 2)).sum(),
  "inverse": lambda x: (1 / (3 + x[:, 1] ** 2)).sum(),
  "maximum": lambda x: jnp.maximum(x[0], x[1]).sum(),
  "power": lambda x: ((2 + x**2) ** 1.5).sum(),
  "cube": lambda x: (x**3).sum(),
  "clip": lambda x: jnp.clip(hidden(x), -1, 0.5).sum(),
  "scan": scanned,
  "bias": lambda x: out(jnp.tanh(hidden(x) + 1.0)),
}


@pytest.mark.parametrize("reference", ["other", "zero", "same"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_contributions_sum_to_the_change(name, reference):
  f = FUNCTIONS[name]
  x0 = {"other": X0, "zero": np.zeros_like(X), "same": X}[reference]
  found = np.asarray(jax.jit(lambda a, b: deep_lift(f, a, b))(X, x0))
  assert np.isfinite(found).all()
  mass = max(np.abs(found).sum(), 1e-3)
  if reference == "same":
    assert not found.any()
  elif reference == "other":
    assert mass > 0.1
  change = float(f(X) - f(x0))
  assert abs(found.sum(dtype=np.float64) - change) <= 2e-6 * mass + 2e-6


def test_elementwise_functions_act_as_one():
  """However a function is written, its slope is that between the runs."""
  for name in ("gelu", "silu", "elu", "leaky_relu", "softplus"):
    act = getattr(jax.nn, name)
    run = jax.jit(lambda a, b, f=act: deep_lift(lambda x: f(x).sum(), a, b))
    found = run(X, X0)
    np.testing.assert_allclose(found, act(X) - act(X0), atol=2e-5)


def test_rows_do_not_mix():
  f = FUNCTIONS["softmax"]
  run = jax.jit(lambda a, b: deep_lift(f, a, b))
  found = np.asarray(run(X, X0))
  for row in range(ROWS):
    alone = run(X[row : row + 1], X0[row : row + 1])
    np.testing.assert_allclose(found[row], alone[0], rtol=1e-4, atol=1e-6)


def test_scores_that_all_rise_alike_change_nothing():
  found = deep_lift(lambda x: out(jax.nn.softmax(x)[:, :1] * V[None]), X + 2, X)
  np.testing.assert_allclose(np.asarray(found).sum(1), 0, atol=1e-5)


@pytest.mark.parametrize(
  ("f", "name"),
  [
    (lambda x: jnp.sort(x[0])[-2:].sum(), "sort"),
    (lambda x: x.max(-1).sum(), "reduce_max"),
    (lambda x: jnp.where(x[0] > 0, x[1], x[2] ** 2).sum(), "select_n"),
    (lambda x: jnp.cumprod(x).sum(), "cumprod"),
  ],
)
def test_what_has_no_rescale_rule_is_refused(f, name):
  with pytest.raises(RuleError, match=f"the operation `{name}`"):
    deep_lift(f, X, X0)
