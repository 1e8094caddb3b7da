"""Integrated-gradient attribution patching: slopes averaged along a path.

    (a_source - a_base) . mean over t in (0, 1) of d target / d a  at point t

Two paths from base to source:

    "inputs"       the embeddings move, e_base + t (e_source - e_base), and all
                   else follows: one path for all sites
    "activations"  the site itself moves, at all positions at once, and what is
                   upstream of it stays that of the base: one path for a site

Along "activations" the estimates of a site are complete: they add up to the
effect of patching all its positions and heads at once. Along "inputs" they are
so at `embed` alone. The path through activations is in `site_paths`.

Sources: Hanna, Pezzelle and Belinkov 2024, "Have Faith in Faithfulness: Going
Beyond Circuit Overlap When Finding Model Mechanisms" (inputs); Marks et al.
2024, "Sparse Feature Circuits" (activations).
"""

from collections.abc import Callable, Mapping
import functools

import jax
import jax.numpy as jnp
from penzai import pz

from gemma_scope.attribution import gradients
from gemma_scope.attribution.composites import GRADIENT, RuleTable
from gemma_scope.attribution.objectives import ResolvedTarget
from gemma_scope.attribution.patching.question import (
  Estimates,
  PatchQuestion,
)
from gemma_scope.attribution.patching.site_paths import along_activations
from gemma_scope.attribution.patching.slopes import (
  effects,
  slopes,
  values_at,
)
from gemma_scope.attribution.relevance import EMBED
from gemma_scope.attribution.rows import Rows, Values
from gemma_scope.errors import ConfigError
from gemma_scope.model.gemma import Gemma
from gemma_scope.sites import Site


def integrated_patching(question: PatchQuestion) -> Estimates:
  """Estimates by gradients averaged along `options.path`.

  Raises:
    ConfigError: If there is no such path.
  """
  options = question.options
  if options.path not in PATHS:
    raise ConfigError(
      "There is no such path from base to source.",
      received=f"path={options.path!r}",
      instead=" or ".join(f"path={name!r}" for name in PATHS),
    )
  nodes = gradients.quadrature(options.quadrature, options.steps)
  return PATHS[options.path](question, nodes)


def _along_inputs(question: PatchQuestion, nodes: gradients.Nodes) -> Estimates:
  """One path through the embeddings for all sites."""
  q, pairs = question, question.pairs
  every = tuple(dict.fromkeys((*q.sites, EMBED)))
  top, source = values_at(q.model, pairs.source, pairs.target, every)
  bottom, base = values_at(q.model, pairs.base, pairs.target, every)
  way, slope = source[EMBED] - base[EMBED], None
  batches = gradients.in_batches(pairs.base, nodes)
  for i, some in enumerate(batches):
    part = mean_slopes(q.model, pairs.base, pairs.target, way, some, q.sites)
    slope = part if slope is None else jax.tree.map(jnp.add, slope, part)
    jax.block_until_ready(slope)  # so that progress tells the truth
    q.tell((i + 1) / len(batches))
  assert slope is not None
  values = effects(source, base, slope, q.options.per_element)
  return Estimates(top, bottom, values, {})


@functools.partial(jax.jit, static_argnames=("sites", "rules"))
def mean_slopes(
  model: Gemma,
  rows: Rows,
  target: ResolvedTarget,
  way: pz.nx.NamedArray,
  nodes: tuple[jax.Array, jax.Array],
  sites: tuple[Site, ...],
  rules: RuleTable = GRADIENT,
) -> Values:
  """The weighted sum of slopes at some points of a path of embeddings.

  Args:
    model: The model.
    rows: The prompts where the path starts.
    target: What is measured.
    way: From the embeddings there to those where it ends.
    nodes: Points in [0, 1] and their weights.
    sites: Where slopes are wanted.
    rules: A rule table; the empty one gives the gradient.

  Returns:
    Site -> slope, float32.
  """
  points, weights = nodes
  many, targets = gradients.repeated(rows, target, points.shape[0])
  shift = along(way, points)
  _, _, slope = slopes(model, many, targets, sites, shift, rules)
  return {site: weighted(value, weights) for site, value in slope.items()}


def along(way: pz.nx.NamedArray, points: jax.Array) -> pz.nx.NamedArray:
  """Each of `points` times `way`, as rows of one batch."""
  names = tuple(way.named_axes)
  data = way.unwrap(*names)
  share = points.astype(data.dtype).reshape(-1, *(1,) * data.ndim)
  return pz.nx.wrap((share * data[None]).reshape(-1, *data.shape[1:]), *names)


def weighted(value: pz.nx.NamedArray, weights: jax.Array) -> pz.nx.NamedArray:
  """The weighted sum over points that are rows of one batch, float32."""
  names = tuple(value.named_axes)
  data = value.unwrap(*names).astype(jnp.float32)
  points = data.reshape(weights.shape[0], -1, *data.shape[1:])
  return pz.nx.wrap(jnp.tensordot(weights, points, axes=1), *names)


PATHS: Mapping[str, Callable[[PatchQuestion, gradients.Nodes], Estimates]] = {
  "inputs": _along_inputs,
  "activations": along_activations,
}
