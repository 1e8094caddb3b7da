"""The rescale rule of DeepLIFT: slopes between two runs, not at a point.

    unary     m = (y - y0) / (x - x0)
    product   y - y0 = (a - a0) (b + b0) / 2 + (b - b0) (a + a0) / 2
    softmax   m_ij = l_i (d_ij - l_j / sum_k l_k),  l = (p - p0) / ln(p / p0)

x is the run explained and x0 the reference. Multipliers m chain like
derivatives, and sum_i m_i (x_i - x0_i) = f(x) - f(x0). Unary functions follow
Shrikumar et al. 2017, "Learning Important Features Through Propagating
Activation Differences", eq. 9. A function of two active values is shared as by
Shapley, over both orders in which they can change, as SHAP does for products
and quotients (Lundberg and Lee 2017); reveal-cancel is not here. The softmax is
ours: the derivative p_i (d_ij - p_j) with logarithmic means for p. It is exact,
and adding one number to all scores changes nothing.

The two runs stand along the axis `REFERENCE` of a vmap, so that each operation
sees the value that the other run has there.
"""

from collections.abc import Callable, Sequence
import dataclasses

import jax
import jax.numpy as jnp

from gemma_scope.attribution.surrogate import same_value
from gemma_scope.errors import ConfigError

REFERENCE = "reference"

_SERIES = 0.1  # ln(p / p0) up to which the mean's series is used


@dataclasses.dataclass(frozen=True)
class Rescale:
  """Slopes between the run explained and a reference run.

  For `deep_lift`: alone, an operation knows of no other run.

  Attributes:
    near: Values closer than this, relative to their size, take the derivative
      halfway between them.
  """

  near: float = 1e-4

  def function(
    self, f: Callable[[jax.Array], jax.Array], x: jax.Array, y: jax.Array
  ) -> jax.Array:
    """The surrogate of an elementwise function y = f(x)."""
    return same_value(y, x * self._slope(f, x, y - in_other_run(y)))

  def binary(
    self,
    f: Callable[[jax.Array, jax.Array], jax.Array],
    a: jax.Array,
    b: jax.Array,
    y: jax.Array,
  ) -> jax.Array:
    """The surrogate of an elementwise function y = f(a, b)."""
    a0, b0 = in_other_run(a), in_other_run(b)
    first, last = f(a, b) - f(a0, b), f(a, b0) - f(a0, b0)
    of_a = self._slope(lambda v: f(v, (b + b0) / 2), a, (first + last) / 2)
    first, last = f(a, b) - f(a, b0), f(a0, b) - f(a0, b0)
    of_b = self._slope(lambda v: f((a + a0) / 2, v), b, (first + last) / 2)
    return same_value(y, a * of_a + b * of_b)

  def multiply(
    self,
    f: Callable[[jax.Array, jax.Array], jax.Array],
    a: jax.Array,
    b: jax.Array,
    y: jax.Array,
  ) -> jax.Array:
    """The surrogate of y = f(a, b), linear in each of the two."""
    return same_value(y, f(a, _mean(b)) + f(_mean(a), b))

  def selection(
    self, which: jax.Array, cases: Sequence[jax.Array], y: jax.Array
  ) -> jax.Array:
    """The surrogate of a choice y where the two runs choose otherwise.

    All cases are functions of one value, so it is right whichever of them gets
    the whole change of y; the one that itself changes most does.

    Args:
      which: The choice.
      cases: The active ones of what it chooses among.
      y: What is chosen.
    """
    most, changed = cases[0], cases[0] - in_other_run(cases[0])
    for case in cases[1:]:
      change = case - in_other_run(case)
      more = jnp.abs(change) > jnp.abs(changed)
      most = jnp.where(more, case, most)
      changed = jnp.where(more, change, changed)
    slope = _divided(y - in_other_run(y), changed, changed == 0, 0.0)
    passing = most * jax.lax.stop_gradient(slope)
    chosen_alike = which == in_other_run(which)
    return same_value(y, jnp.where(chosen_alike, y, passing))

  def softmax(
    self, x: jax.Array, total: jax.Array, p: jax.Array, axes: tuple[int, ...]
  ) -> jax.Array:
    """The surrogate of p = exp(x) / total over `axes`.

    Args:
      x: Scores, shifted in each run by any number.
      total: The sum of exp(x).
      p: The result.
      axes: What was summed over.
    """
    log_p = x - jnp.log(total)
    change = jax.lax.stop_gradient(log_p) - in_other_run(log_p)
    p0 = in_other_run(p)
    both = jax.lax.stop_gradient(p) + p0
    apart = jax.lax.stop_gradient(p) - p0
    ratio = _divided(apart, both, both == 0, 0.0)
    series = both / 2 * (1 - ratio * ratio / 3)
    mean = _divided(apart, change, jnp.abs(change) < _SERIES, series)
    sum_of = lambda v: jnp.sum(v, axis=axes, keepdims=True)  # noqa: E731
    shared = _divided(sum_of(mean * x), sum_of(mean), sum_of(mean) == 0, 0.0)
    return same_value(p, mean * (x - shared))

  def _slope(
    self,
    f: Callable[[jax.Array], jax.Array],
    x: jax.Array,
    change: jax.Array,
  ) -> jax.Array:
    """Returns change / (x - x0); f'((x + x0) / 2) where that is 0 / 0."""
    x0, x = in_other_run(x), jax.lax.stop_gradient(x)
    step = x - x0
    middle = jax.lax.stop_gradient(x0 + step / 2)
    _, native = jax.jvp(f, (middle,), (jnp.ones_like(middle),))
    near = jnp.abs(step) <= self.near * (jnp.abs(x) + jnp.abs(x0))
    return jax.lax.stop_gradient(_divided(change, step, near, native))


def in_other_run(x: jax.Array) -> jax.Array:
  """What the other run has in the place of `x`, held constant.

  Raises:
    ConfigError: If there is no other run.
  """
  try:
    jax.lax.axis_size(REFERENCE)
  except NameError as error:
    raise ConfigError(
      "The rescale rule compares two runs, and there is one.",
      received="transform(f, rules) with a Rescale rule, called by itself",
      instead="deep_lift(f, x, reference, rules), which runs both",
    ) from error
  held = jax.lax.stop_gradient(x)
  return jax.lax.ppermute(held, REFERENCE, [(0, 1), (1, 0)])


def _mean(x: jax.Array) -> jax.Array:
  """The mean of both runs, held constant."""
  return jax.lax.stop_gradient((x + in_other_run(x)) / 2)


def _divided(
  a: jax.Array, b: jax.Array, where: jax.Array, other: jax.Array | float
) -> jax.Array:
  """Returns a / b, and `other` in some places."""
  safe = jnp.where(where, jnp.ones_like(b), b)
  return jnp.where(where, jnp.asarray(other, a.dtype), a / safe)
