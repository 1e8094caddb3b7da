"""Integrated gradients at a site.

    R = (x - b) * mean over a in (0, 1) of df/dx at b + a (x - b)
    sum R = f(x) - f(b)

Source: Sundararajan, Taly and Yan 2017, "Axiomatic Attribution for Deep
Networks", eq. 1. Integration changes one site at a time and keeps what is
upstream of it. `values_and_gradients` is the one backward pass of all that
average gradients. Input x gradient is in `relevance`.
"""

import functools
import operator

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np
from penzai import pz

from gemma_scope.attribution.evaluate import evaluate, value_on
from gemma_scope.attribution.objectives import ResolvedTarget
from gemma_scope.attribution.rows import Rows
from gemma_scope.errors import ConfigError
from gemma_scope.model import gemma
from gemma_scope.sites import Site
from gemma_scope.surgery.select import replace

STEP_TOKENS = 1024  # tokens of all integration steps that run side by side

Nodes = tuple[np.ndarray, np.ndarray]  # points in [0, 1] and their weights
QUADRATURES = ("gauss_legendre", "midpoint", "trapezoid")


def integrated_gradients(
  model: gemma.Gemma,
  rows: Rows,
  target: ResolvedTarget,
  baseline: Float[Array, "..."],
  nodes: Nodes,
  site: Site,
) -> tuple[Float[Array, " batch"], Float[Array, " batch"], pz.nx.NamedArray]:
  """Integrated gradients at one site.

  As many steps run side by side as fit in `STEP_TOKENS` tokens.

  Args:
    model: The model.
    rows: The prompts.
    target: What is explained.
    baseline: Value of the site where integration starts; broadcasts.
    nodes: Points in [0, 1] and their weights (see `quadrature`).
    site: The site.

  Returns:
    The target on the prompt, the target at the baseline, and the relevance.
  """
  value = value_on(model, rows, site)
  start = jnp.broadcast_to(baseline.astype(value.dtype), value.shape)
  # Both ends join the points, without weight: one program gives all.
  points = np.append(nodes[0], np.arange(2, dtype=np.float32))
  weights = np.append(nodes[1], np.zeros(2, np.float32))
  found, parts = [], []
  for some in in_batches(rows, (points, weights)):
    values, part = path_gradient(
      model, rows, target, (start, value), some, site
    )
    found.append(values)
    parts.append(part)
  bottom, top = np.concatenate(found)[len(nodes[0]) : len(points)]
  total = functools.reduce(operator.add, parts)
  way = pz.nx.wrap(value - start, *site.info.axes)
  return top, bottom, jax.tree.map(value_x_gradient, way, total)


@functools.partial(jax.jit, static_argnames="site")
def path_ends(
  model: gemma.Gemma,
  rows: Rows,
  target: ResolvedTarget,
  baseline: Float[Array, "..."],
  site: Site,
) -> tuple[
  Float[Array, " batch"],
  Float[Array, " batch"],
  pz.nx.NamedArray,
  pz.nx.NamedArray,
]:
  """The target at both ends, the path's first point, and the way along it."""
  names = site.info.axes
  value = value_on(model, rows, site)
  start = jnp.broadcast_to(baseline.astype(value.dtype), value.shape)
  both = jnp.concatenate([value, start])
  ends, _ = evaluate(
    replace(model, [site]),
    *repeated(rows, target, 2),
    {site: pz.nx.wrap(both, *names)},
  )
  top, bottom = jnp.split(ends, 2)
  return (
    top,
    bottom,
    pz.nx.wrap(start, *names),
    pz.nx.wrap(value - start, *names),
  )


@functools.partial(jax.jit, static_argnames="site")
def path_gradient(
  model: gemma.Gemma,
  rows: Rows,
  target: ResolvedTarget,
  ends: tuple[Float[Array, "batch ..."], Float[Array, "batch ..."]],
  nodes: Nodes,
  site: Site,
) -> tuple[Float[Array, "points batch"], pz.nx.NamedArray]:
  """The target at some points of the path, the weighted sum of its gradients.

  The points become rows of one batch: the same as vmap, and faster, because
  every product stays a plain matrix product. The sum is float32.
  """
  points, weights = nodes
  start, value = (end[None] for end in ends)
  share = spread(points, value.ndim - 1).astype(value.dtype)
  path = jnp.where(share == 1, value, start + share * (value - start))
  factors = spread(weights, value.ndim - 1)
  return values_and_gradients(model, rows, target, path, factors, site)


def values_and_gradients(
  model: gemma.Gemma,
  rows: Rows,
  target: ResolvedTarget,
  points: Float[Array, "points batch ..."],
  factors: Float[Array, "points ..."],
  site: Site,
) -> tuple[Float[Array, "points batch"], pz.nx.NamedArray]:
  """The target at some values of a site, and the sum of factor x gradient.

  Args:
    model: The model.
    rows: The prompts.
    target: What is explained.
    points: Values of the site, for each prompt.
    factors: Broadcasts to `points`; where it is 0 the gradient may be infinite.
    site: The site.

  Returns:
    The target of each prompt at each point, and the sum over points, float32.
  """
  names, count = site.info.axes, points.shape[0]
  many, targets = repeated(rows, target, count)
  changed = replace(model, [site])

  def total(flat: jax.Array) -> tuple[jax.Array, jax.Array]:
    inputs = {site: pz.nx.wrap(flat, *names)}
    value, _ = evaluate(changed, many, targets, inputs)
    return value.sum(), value

  flat = points.reshape(-1, *points.shape[2:])
  gradient, value = jax.grad(total, has_aux=True)(flat)
  by_point = gradient.reshape(points.shape).astype(jnp.float32)
  weighted = jnp.where(factors == 0, 0.0, factors * by_point)
  total_gradient = pz.nx.wrap(jnp.sum(weighted, axis=0), *names)
  return value.reshape(count, -1), total_gradient


def spread(values: jax.Array | np.ndarray, axes: int) -> jax.Array:
  """[points] with `axes` more axes of size one."""
  return jnp.asarray(values).reshape(-1, *(1,) * axes)


def repeated(
  rows: Rows, target: ResolvedTarget, count: int
) -> tuple[Rows, ResolvedTarget]:
  """All prompts `count` times, one round after the other."""
  index = jnp.tile(jnp.arange(rows.ids.shape[0]), count)
  return rows.take(index), target.take(index)


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
  if name not in QUADRATURES or steps < least or steps % 1:
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


def in_batches(rows: Rows, nodes: Nodes) -> list[Nodes]:
  """Points of a path in equal numbers that fit side by side.

  The last batch is filled up with points of weight zero, so that one compiled
  program serves all of them.
  """
  points, weights = nodes
  count = steps_at_once(rows, len(points))
  rounds = -(-len(points) // count)
  count = -(-len(points) // rounds)
  extra = rounds * count - len(points)
  points = np.pad(points, (0, extra), mode="edge")
  weights = np.pad(weights, (0, extra))
  starts = range(0, len(points), count)
  return [(points[i : i + count], weights[i : i + count]) for i in starts]


def value_x_gradient(value: jax.Array, gradient: jax.Array) -> jax.Array:
  """The product, in float32."""
  return value.astype(jnp.float32) * gradient.astype(jnp.float32)
