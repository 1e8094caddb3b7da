"""Values and slopes of a target at many sites, from one backward pass.

    effect of putting a' in the place of a  ~  sum (a' - a) . slope

The slope at a site is the derivative by an offset of zero added there. Under a
rule table it is the table's propagation coefficient instead of the gradient.
Batch is the first axis of every site, and each position and head of a site is
one cell: patching changes one cell at a time.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
from penzai import pz

from gemma_scope import axes
from gemma_scope.attribution.composites import GRADIENT, RuleTable
from gemma_scope.attribution.evaluate import evaluate
from gemma_scope.attribution.objectives import ResolvedTarget
from gemma_scope.attribution.relevance import values_and_slopes
from gemma_scope.attribution.rows import Rows, Values
from gemma_scope.model.gemma import Gemma
from gemma_scope.sites import Site
from gemma_scope.surgery.select import tap

CELL = (axes.BATCH, axes.SEQ, axes.HEADS, axes.KV_HEADS)


@functools.partial(jax.jit, static_argnames="sites")
def values_at(
  model: Gemma, rows: Rows, target: ResolvedTarget, sites: tuple[Site, ...]
) -> tuple[Float[Array, " batch"], Values]:
  """The target of each row and the values at some sites."""
  value, taps = evaluate(tap(model, sites), rows, target, {})
  return value, {site: taps[site] for site in sites}


@functools.partial(jax.jit, static_argnames=("sites", "rules"))
def slopes(
  model: Gemma,
  rows: Rows,
  target: ResolvedTarget,
  sites: tuple[Site, ...],
  shift: pz.nx.NamedArray | None = None,
  rules: RuleTable = GRADIENT,
) -> tuple[Float[Array, " batch"], Values, Values]:
  """Values at some sites, and the slope of the target there.

  Args:
    model: The model.
    rows: The prompts.
    target: What is measured.
    sites: The sites.
    shift: What is added to the embeddings, for a point of a path that is no
      text.
    rules: A rule table; the empty one gives the gradient.

  Returns:
    The target of each row, site -> value, site -> slope in the same dtype.

  Raises:
    RuleError: If the table cannot pass relevance through the model.
  """
  return values_and_slopes(model, rows, target, sites, rules, shift)


@functools.partial(jax.jit, static_argnames="per_element")
def effects(
  source: Values, base: Values, slope: Values, per_element: bool = False
) -> Values:
  """(a' - a) . slope at every site, float32.

  Args:
    source: Site -> a'; sites without a slope are left out.
    base: Site -> a.
    slope: Site -> slope.
    per_element: Whether products keep all axes of the site; otherwise they
      are summed over everything but batch, position and head.
  """
  found = {}
  for site, by in slope.items():
    names = site.info.axes
    change = _float32(source[site], names) - _float32(base[site], names)
    product = pz.nx.wrap(change * _float32(by, names), *names)
    found[site] = product if per_element else to_cells(product)
  return found


def _float32(value: pz.nx.NamedArray, names: tuple[str, ...]) -> jax.Array:
  return value.unwrap(*names).astype(jnp.float32)


@jax.jit
def take(values: Values, index: Int[Array, " rows"]) -> Values:
  """Some of the rows of every site, in any order, also repeated."""
  return {site: _take(value, index) for site, value in values.items()}


def _take(value: pz.nx.NamedArray, index: jax.Array) -> pz.nx.NamedArray:
  names = tuple(value.named_axes)
  return pz.nx.wrap(value.unwrap(*names)[index], *names)


def to_cells(value: pz.nx.NamedArray) -> pz.nx.NamedArray:
  """Sums over everything but batch, position and head.

  Returns:
    {batch, seq}, and {heads} or {kv_heads} where the site has them; seq is the
    position that looks, at `pattern`.
  """
  names = list(value.named_axes)
  kept = [name for name in CELL if name in names]
  other = [name for name in names if name not in CELL]
  data = value.unwrap(*kept, *other)
  summed = data.sum(axis=tuple(range(len(kept), data.ndim)))
  return pz.nx.wrap(summed, *kept)
