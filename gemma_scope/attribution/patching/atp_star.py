"""AtP*: attribution patching that sees through saturated softmaxes.

Queries and keys act on the target through a softmax, where one attended token
often takes nearly all and the gradient says nothing. Their estimate recomputes
the softmax with the patched query or key (`query_key`) and is linear from the
pattern on. All other sites have the estimate of attribution patching. GradDrop
(`grad_drop`) gives sizes that effects of opposite sign do not cancel.

Our sites `query` and `key` stand after QK-norm and rotation, what enters the
dot product. Norm and rotation act on one position of one head at a time and
are the same in both runs, so patching a raw query or key there is the same as
patching ours: no part of them is linearised. `attn_in` has the sum of what its
query, key and value heads are estimated to do, since a patch there at one
position patches just these.

Source: Kramar et al. 2024, "AtP*: An efficient and scalable method for
localizing LLM behaviour to components", sections 3.1.1 (queries: eq. 7, keys:
eqs. 9 and 10) and 3.1.2 (eq. 11).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from penzai import pz

from gemma_scope import axes
from gemma_scope.attribution.gradients import steps_at_once
from gemma_scope.attribution.patching.grad_drop import gated, mean_size
from gemma_scope.attribution.patching.query_key import (
  Heads,
  key_effects,
  query_effects,
)
from gemma_scope.attribution.patching.question import (
  Estimates,
  PatchQuestion,
)
from gemma_scope.attribution.patching.slopes import (
  effects,
  slopes,
  take,
  values_at,
)
from gemma_scope.attribution.rows import Rows, Values
from gemma_scope.errors import ConfigError
from gemma_scope.model.attention import KEY_AXES, QUERY_AXES
from gemma_scope.model.config import GemmaConfig
from gemma_scope.model.placement import places_of
from gemma_scope.sites import Site

THROUGH_SCORES = ("query", "key", "attn_in")
_HEADS = ("query", "key", "value", "z")
_NOTHING = -1  # the round in which no layer is dropped
_FILLER = -2  # a round that fills up a batch


def atp_star(question: PatchQuestion) -> Estimates:
  """Estimates with queries and keys corrected, and GradDrop's sizes.

  Raises:
    ConfigError: If estimates of single elements are asked for.
  """
  q, pairs = question, question.pairs
  if q.options.per_element:
    raise ConfigError(
      "AtP* estimates whole queries and keys, not their elements.",
      received="per_element=True with atp_star",
      instead='method="attribution_patching", or per_element=False',
    )
  every = _needed(q.sites)
  top, source = values_at(q.model, pairs.source, pairs.target, every)
  bottom, parts = np.zeros(0), []
  rounds = _rounds(q)
  for i, dropped in enumerate(rounds):
    bottom, found = _run(q, every, source, dropped)
    parts.append(_shares(q, dropped, found))
    q.tell((i + 1) / len(rounds))
  values, sizes = (
    {s: np.sum([part[i][s] for part in parts], axis=0) for s in q.sites}
    for i in (0, 1)
  )
  return Estimates(
    top,
    bottom,
    {site: _named(site, value) for site, value in values.items()},
    {s: _named(s, size) for s, size in sizes.items() if q.options.grad_drop},
  )


def _needed(sites: tuple[Site, ...]) -> tuple[Site, ...]:
  """The sites, and all of the attention where scores are in between."""
  layers = {s.layer for s in sites if s.name in THROUGH_SCORES}
  heads = {Site(name, layer) for layer in layers for name in _HEADS}
  return tuple(sorted({*sites, *heads}))


def _rounds(q: PatchQuestion) -> np.ndarray:
  """[batches, rounds] which layer is dropped, as many as fit side by side."""
  layers = q.model.config.num_layers if q.options.grad_drop else 0
  rounds = np.asarray([_NOTHING, *range(layers)])
  count = steps_at_once(q.pairs.base, len(rounds))
  extra = (0, -len(rounds) % count)
  return np.pad(rounds, extra, constant_values=_FILLER).reshape(-1, count)


def _run(
  q: PatchQuestion,
  every: tuple[Site, ...],
  source: Values,
  dropped: np.ndarray,
) -> tuple[np.ndarray, Values]:
  """The target of the base, and cells with each of some layers dropped.

  The batch of the cells is all pairs for the first round, then for the next.
  """
  layers, batch = q.model.config.num_layers, q.pairs.base.ids.shape[0]
  index = jnp.tile(jnp.arange(batch), len(dropped))
  drops = np.arange(layers)[:, None] == np.repeat(dropped, batch)[None, :]
  many = q.pairs.take(index)
  model = gated(q.model, jnp.asarray(drops))
  bottom, base, slope = slopes(model, many.base, many.target, every)
  source = take(source, index)
  found = cells(q.model.config, q.sites, many.base, source, base, slope)
  return np.asarray(bottom)[:batch], found


def _shares(
  q: PatchQuestion, dropped: np.ndarray, found: Values
) -> tuple[dict[Site, np.ndarray], dict[Site, np.ndarray]]:
  """What some rounds add to the estimates and to the mean sizes."""
  values, sizes = {}, {}
  for site, cell in found.items():
    data = np.asarray(cell.unwrap(*cell.named_axes))
    data = data.reshape(len(dropped), -1, *data.shape[1:])
    plain = (dropped == _NOTHING).astype(np.float32)
    values[site] = np.tensordot(plain, data, axes=1)
    sizes[site] = mean_size(data, dropped, site, q.model.config.num_layers)
  return values, sizes


def _named(site: Site, cells: np.ndarray) -> pz.nx.NamedArray:
  """Cells with the names of their axes."""
  heads = [n for n in site.info.axes if n in (axes.HEADS, axes.KV_HEADS)]
  return pz.nx.wrap(cells, axes.BATCH, axes.SEQ, *heads)


@functools.partial(jax.jit, static_argnames=("config", "sites"))
def cells(
  config: GemmaConfig,
  sites: tuple[Site, ...],
  rows: Rows,
  source: Values,
  base: Values,
  slope: Values,
) -> Values:
  """The estimate of every cell of some sites.

  Args:
    config: The model's shape.
    sites: The sites.
    rows: The base prompts.
    source: Values there and in the attention around queries and keys.
    base: The same of the base run.
    slope: The target's slope at the same sites.
  """
  plain = effects(source, base, slope)
  found = {site: plain[site] for site in sites}
  asked = {site.layer for site in sites if site.name in THROUGH_SCORES}
  for layer in sorted(i for i in asked if i is not None):
    heads = _heads(layer, rows, base, slope)
    query = _query(config, heads, source, layer)
    key = _key(config, heads, source, layer)
    value = plain[Site("value", layer)]
    both = {"query": query, "key": key}
    both["attn_in"] = _over_heads([query, key, value])
    found |= {Site(n, layer): v for n, v in both.items()}
  return {site: found[site] for site in sites}


def _heads(layer: int, rows: Rows, base: Values, slope: Values) -> Heads:
  return Heads(
    base[Site("query", layer)].unwrap(*QUERY_AXES),
    base[Site("key", layer)].unwrap(*KEY_AXES),
    base[Site("value", layer)].unwrap(*KEY_AXES),
    slope[Site("z", layer)].unwrap(*QUERY_AXES),
    places_of(rows.segment_ids),
  )


def _query(
  config: GemmaConfig, heads: Heads, source: Values, layer: int
) -> pz.nx.NamedArray:
  query = source[Site("query", layer)].unwrap(*QUERY_AXES)
  found = query_effects(heads, query, *_scores_of(config, layer))
  return pz.nx.wrap(found, axes.BATCH, axes.SEQ, axes.HEADS)


def _key(
  config: GemmaConfig, heads: Heads, source: Values, layer: int
) -> pz.nx.NamedArray:
  key = source[Site("key", layer)].unwrap(*KEY_AXES)
  found = key_effects(heads, key, *_scores_of(config, layer))
  return pz.nx.wrap(found, axes.BATCH, axes.SEQ, axes.KV_HEADS)


def _scores_of(config: GemmaConfig, layer: int) -> tuple[float, int | None]:
  """The factor of a layer's scores, and its window."""
  window = None if config.is_global(layer) else config.window
  return config.query_scalar**-0.5, window


def _over_heads(parts: list[pz.nx.NamedArray]) -> pz.nx.NamedArray:
  """The sum over heads of every kind, {batch, seq}."""
  summed = [
    part.unwrap(axes.BATCH, axes.SEQ, list(part.named_axes)[-1]).sum(axis=-1)
    for part in parts
  ]
  return pz.nx.wrap(jnp.stack(summed).sum(axis=0), axes.BATCH, axes.SEQ)
