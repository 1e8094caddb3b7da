"""Scores of all edges as arrays: differences of writes times readers' slopes.

One backward pass at each point of the path gives what the readers' slopes are
pulled back from; they are then made, multiplied and dropped layer by layer.
"""

from collections.abc import Sequence
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from gemma_scope import axes
from gemma_scope.attribution import gradients
from gemma_scope.attribution.composites import RuleTable
from gemma_scope.attribution.pairs import Pairs
from gemma_scope.attribution.patching.edge_ports import (
  Arrays,
  LayerRun,
  attention_readers,
  feedforward_reader,
  head_writes,
)
from gemma_scope.attribution.patching.integrated import along
from gemma_scope.attribution.patching.slopes import slopes, values_at
from gemma_scope.attribution.relevance import EMBED
from gemma_scope.attribution.rows import Rows, Values
from gemma_scope.model.attention import KEY_AXES, QUERY_AXES
from gemma_scope.model.block import block_arrays
from gemma_scope.model.gemma import Gemma
from gemma_scope.model.placement import Placement, placement_of, places_of
from gemma_scope.sites import Site, resolve

_STREAM = (axes.BATCH, axes.SEQ, axes.EMBEDDING)
_WRITTEN = ("embed", "z[:]", "attn_proj[:]", "mlp_write[:]")
_READ = (
  *("resid_pre[:]", "query[:]", "key[:]", "value[:]"),
  *("resid_mid[:]", "mlp_in[:]", "resid_post[-1]"),
)


def path_scores(
  model: Gemma,
  pairs: Pairs,
  nodes: tuple[np.ndarray, np.ndarray],
  rules: RuleTable,
  per_position: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Scores averaged along the path of embeddings from base to source.

  Pairs of a writer and a reader in front of it have a number too: leave it
  out.

  Args:
    model: The model.
    pairs: The pairs and the target.
    nodes: Points in [0, 1] and their weights.
    rules: A rule table; the empty one gives gradients.
    per_position: Whether scores keep the position, as their last axis.

  Returns:
    [batch, writers, readers(, seq)] scores, float32; [batch] the target on
    the sources; [batch] the target on the bases.
  """
  layers = model.config.num_layers
  wrote = resolve(_WRITTEN, layers)
  top, source = values_at(model, pairs.source, pairs.target, wrote)
  bottom, base = values_at(model, pairs.base, pairs.target, wrote)
  arrays = [block_arrays(model.stack.block(i)) for i in range(layers)]
  written = _changes(arrays, source, base, model.config.norm_eps)
  way, total = source[EMBED] - base[EMBED], np.zeros(())
  for points, weights in gradients.in_batches(pairs.base, nodes):
    many, targets = gradients.repeated(pairs.base, pairs.target, len(points))
    read, shift = resolve(_READ, layers), along(way, jnp.asarray(points))
    _, seen, slope = slopes(model, many, targets, read, shift, rules)
    placement = _placement(model, many)
    runs = [_run(model, seen, slope, placement, i) for i in range(layers)]
    eps = model.config.norm_eps
    parts = [
      layer_scores(own, written, run, weights, eps, rules, per_position)
      for own, run in zip(arrays, runs)
    ]
    last = slope[Site("resid_post", layers - 1)].unwrap(*_STREAM)
    parts.append(scores_of(written, last[None], weights, per_position))
    total = total + np.concatenate([np.asarray(p) for p in parts], axis=2)
  return total, np.asarray(top), np.asarray(bottom)


def _run(
  model: Gemma, seen: Values, slope: Values, placement: Placement, layer: int
) -> LayerRun:
  """The streams of one layer, and the slopes behind them."""
  everywhere = model.config.is_global(layer)
  return LayerRun(
    seen[Site("resid_pre", layer)].unwrap(*_STREAM),
    seen[Site("resid_mid", layer)].unwrap(*_STREAM),
    placement.globally if everywhere else placement.local,
    slope[Site("query", layer)].unwrap(*QUERY_AXES),
    slope[Site("key", layer)].unwrap(*KEY_AXES),
    slope[Site("value", layer)].unwrap(*KEY_AXES),
    slope[Site("mlp_in", layer)].unwrap(*_STREAM),
  )


@jax.jit
def _placement(model: Gemma, rows: Rows) -> Placement:
  return placement_of(places_of(rows.segment_ids), model.config)


def _changes(
  arrays: Sequence[Arrays], source: Values, base: Values, eps: float
) -> Float[Array, "writers batch seq embedding"]:
  """What each writer writes in the source run minus in the base run."""

  def change(site: Site) -> jax.Array:
    ours, theirs = (run[site].unwrap(*_STREAM) for run in (source, base))
    return (ours.astype(jnp.float32) - theirs.astype(jnp.float32))[None]

  parts = [change(EMBED)]
  for i, weights in enumerate(arrays):
    ours, theirs = (
      _head_writes(
        weights,
        run[Site("z", i)].unwrap(*QUERY_AXES),
        run[Site("attn_proj", i)].unwrap(*_STREAM),
        eps,
      )
      for run in (source, base)
    )
    parts += [ours - theirs, change(Site("mlp_write", i))]
  return jnp.concatenate(parts)


_head_writes = jax.jit(head_writes, static_argnames="eps")


@functools.partial(jax.jit, static_argnames=("eps", "rules", "per_position"))
def layer_scores(
  arrays: Arrays,
  written: Float[Array, "writers batch seq embedding"],
  run: LayerRun,
  weights: Float[Array, " points"],
  eps: float,
  rules: RuleTable,
  per_position: bool,
) -> Float[Array, "batch writers readers ..."]:
  """Scores of every writer with one layer's readers.

  The batch of `run` is all pairs at the first point of the path, then all at
  the next. Arguments as in `path_scores`.
  """
  slope = jnp.concatenate(
    [
      attention_readers(arrays, run, eps, rules),
      feedforward_reader(arrays, run, eps, rules),
    ]
  )
  return scores_of(written, slope, weights, per_position)


@functools.partial(jax.jit, static_argnames="per_position")
def scores_of(
  written: Float[Array, "writers batch seq embedding"],
  slope: Float[Array, "readers rows seq embedding"],
  weights: Float[Array, " points"],
  per_position: bool,
) -> Float[Array, "batch writers readers ..."]:
  """Products of what is written with slopes averaged over the points."""
  shape = (slope.shape[0], weights.shape[0], -1, *slope.shape[2:])
  points = slope.astype(jnp.float32).reshape(shape)
  mean = jnp.einsum("vpbsd,p->vbsd", points, weights)
  form = "ubsd,vbsd->buvs" if per_position else "ubsd,vbsd->buv"
  return jnp.einsum(form, written, mean, precision=jax.lax.Precision.HIGHEST)
