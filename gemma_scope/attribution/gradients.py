"""Integrated gradients at a site.

    R = (x - b) * mean over a in (0, 1) of df/dx at b + a (x - b)
    sum R = f(x) - f(b)

Source: Sundararajan, Taly and Yan 2017, "Axiomatic Attribution for Deep
Networks", eq. 1. Integration changes one site at a time and keeps what is
upstream of it. Input x gradient is in `relevance`.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np
from penzai import pz

from gemma_scope.attribution.evaluate import (
  Rows,
  Values,
  evaluate,
)
from gemma_scope.attribution.objectives import ResolvedTarget
from gemma_scope.errors import ConfigError
from gemma_scope.model import gemma
from gemma_scope.sites import Site
from gemma_scope.surgery.select import offset, tap

STEP_TOKENS = 1024  # tokens of all integration steps that run side by side

QUADRATURES = ("gauss_legendre", "midpoint", "trapezoid")


@functools.partial(jax.jit, static_argnames=("site", "at_once"))
def integrated_gradients(
  model: gemma.Gemma,
  rows: Rows,
  target: ResolvedTarget,
  baseline: Float[Array, "..."],
  nodes: tuple[jax.Array, jax.Array],
  *,
  site: Site,
  at_once: int,
) -> tuple[Float[Array, " batch"], Float[Array, " batch"], pz.nx.NamedArray]:
  """Integrated gradients at one site.

  Args:
    model: The model.
    rows: The prompts.
    target: What is explained.
    baseline: Value of the site where integration starts; broadcasts.
    nodes: Points in (0, 1) and their weights (see `quadrature`).
    site: The site.
    at_once: Steps that run side by side.

  Returns:
    The target on the prompt, the target at the baseline, and the relevance.
  """
  _, taps = evaluate(tap(model, [site]), rows, target, {})
  value = taps[site]
  difference = jax.tree.map(lambda x: x - baseline.astype(x.dtype), value)
  changed = offset(model, [site])

  def at(a: jax.Array) -> dict[Site, pz.nx.NamedArray]:
    return {
      site: jax.tree.map(lambda d: (a - 1).astype(d.dtype) * d, difference)
    }

  def run(offsets: Values) -> jax.Array:
    return evaluate(changed, rows, target, offsets)[0]

  def weighted(node: tuple[jax.Array, jax.Array]) -> pz.nx.NamedArray:
    a, weight = node
    gradient = jax.grad(lambda o: run(o).sum())(at(a))[site]
    return jax.tree.map(lambda g: weight * g.astype(jnp.float32), gradient)

  ends = jax.vmap(lambda a: run(at(a)))(jnp.asarray([1.0, 0.0]))
  steps = jax.lax.map(weighted, nodes, batch_size=at_once)
  mean = jax.tree.map(lambda g: g.sum(axis=0), steps)
  return ends[0], ends[1], jax.tree.map(value_x_gradient, difference, mean)


def quadrature(name: str, steps: int) -> tuple[np.ndarray, np.ndarray]:
  """Points in [0, 1] and weights that sum to 1, float32, [steps] each.

  Args:
    name: "gauss_legendre" (exact for polynomials of degree 2 steps - 1),
      "midpoint" or "trapezoid" (with both ends).
    steps: Number of points.

  Raises:
    ConfigError: If the name is unknown, or there are too few steps.
  """
  least = 2 if name == "trapezoid" else 1
  if name not in QUADRATURES or steps < least:
    raise ConfigError(
      "Integrated gradients need a known quadrature and enough steps.",
      received=f"quadrature={name!r}, steps={steps}",
      instead=f"one of {', '.join(QUADRATURES)} and steps=20",
    )
  if name == "gauss_legendre":
    x, w = np.polynomial.legendre.leggauss(steps)
    points, weights = (x + 1) / 2, w / 2
  elif name == "midpoint":
    points, weights = (
      (np.arange(steps) + 0.5) / steps,
      np.full(steps, 1 / steps),
    )
  else:
    points, weights = np.linspace(0, 1, steps), np.ones(steps)
    weights[[0, -1]] /= 2
    weights /= weights.sum()
  return points.astype(np.float32), weights.astype(np.float32)


def steps_at_once(rows: Rows, steps: int) -> int:
  """How many steps fit in `STEP_TOKENS` tokens; at least one."""
  return max(1, min(steps, STEP_TOKENS // rows.ids.size))


def value_x_gradient(value: jax.Array, gradient: jax.Array) -> jax.Array:
  """The product, in float32."""
  return value.astype(jnp.float32) * gradient.astype(jnp.float32)
