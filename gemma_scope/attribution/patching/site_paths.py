"""Integrated gradients along the path of one site's own activations.

The value of a site moves from the base's to the source's, at all positions and
heads, while the rest of the run is the base's. The layers of a site name and
the points of their paths are rows of one batch: one compiled program a name.
"""

from collections.abc import Iterator
import dataclasses
import functools

import jax
from jaxtyping import Array, Bool
import numpy as np
from penzai import pz

from gemma_scope.attribution import gradients
from gemma_scope.attribution.evaluate import evaluate
from gemma_scope.attribution.objectives import ResolvedTarget
from gemma_scope.attribution.patching.by_layer import (
  where_acting,
  wrap_by_row,
)
from gemma_scope.attribution.patching.question import (
  Estimates,
  PatchQuestion,
)
from gemma_scope.attribution.patching.slopes import to_cells, values_at
from gemma_scope.attribution.rows import Rows, Values
from gemma_scope.model.context import Context
from gemma_scope.model.gemma import Gemma
from gemma_scope.model.site_layer import ActiveSite
from gemma_scope.sites import Site


@pz.pytree_dataclass(has_implicitly_inherited_fields=True)
class Moved(ActiveSite):
  """Puts a value of its own into some rows.

  Attributes:
    there: The value, with the axes of the site.
    acts: {batch} which rows take it.
  """

  there: pz.nx.NamedArray = dataclasses.field(kw_only=True)
  acts: pz.nx.NamedArray = dataclasses.field(kw_only=True)

  def __call__(
    self, value: pz.nx.NamedArray, /, *, context: Context, **side_inputs
  ) -> pz.nx.NamedArray:
    """Returns the value of `inner`, or that of its own."""
    value = self.inner(value, context=context, **side_inputs)
    return where_acting(self.acts, self.there, value)


@dataclasses.dataclass(frozen=True)
class Points:
  """Points of the paths of all layers of a site name, [points] each.

  Attributes:
    path: Which of the name's sites.
    place: How far along, from 0 (base) to 1 (source).
    weight: Its weight in the mean; zero for a point that fills up a batch.
  """

  path: np.ndarray
  place: np.ndarray
  weight: np.ndarray


def along_activations(
  question: PatchQuestion, nodes: tuple[np.ndarray, np.ndarray]
) -> Estimates:
  """Estimates along a path of its own for each site.

  Args:
    question: What is asked.
    nodes: Points in [0, 1] and their weights.
  """
  q, pairs = question, question.pairs
  top, source = values_at(q.model, pairs.source, pairs.target, q.sites)
  bottom, base = values_at(q.model, pairs.base, pairs.target, q.sites)
  found: Values = {}
  for name in dict.fromkeys(site.name for site in q.sites):
    sites = [site for site in q.sites if site.name == name]
    share = (len(found) / len(q.sites), len(sites) / len(q.sites))
    found |= _one_name(_part(q, *share), sites, source, base, nodes)
  return Estimates(top, bottom, {site: found[site] for site in q.sites}, {})


def _part(question: PatchQuestion, start: float, size: float) -> PatchQuestion:
  """The same question, which tells the share of a part of it."""
  return dataclasses.replace(
    question, tell=lambda share: question.tell(start + size * share)
  )


def _one_name(
  question: PatchQuestion,
  sites: list[Site],
  source: Values,
  base: Values,
  nodes: tuple[np.ndarray, np.ndarray],
) -> Values:
  """Estimates for the layers of one site name."""
  q, pairs = question, question.pairs
  names = sites[0].info.axes
  start, end = (
    np.stack([np.asarray(run[site].unwrap(*names)) for site in sites])
    for run in (base, source)
  )
  way = end - start
  total = np.zeros(way.shape, np.float32)
  batches = list(_batches(pairs.base, len(sites), nodes))
  for i, some in enumerate(batches):
    many, targets = gradients.repeated(pairs.base, pairs.target, len(some.path))
    place = some.place.reshape(-1, *[1] * (way.ndim - 1)).astype(way.dtype)
    there = start[some.path] + place * way[some.path]
    acts = _acting(q.model.config.num_layers, sites, some, way.shape[1])
    slope = moved_slope(
      q.model,
      many,
      targets,
      pz.nx.wrap(there.reshape(-1, *way.shape[2:]), *names),
      acts,
      sites[0].name,
    )
    found = np.asarray(slope.unwrap(*names), np.float32).reshape(there.shape)
    np.add.at(total, some.path, found * some.weight.reshape(place.shape))
    q.tell((i + 1) / len(batches))
  scaled = [pz.nx.wrap(row, *names) for row in way.astype(np.float32) * total]
  if not q.options.per_element:
    scaled = [to_cells(value) for value in scaled]
  return dict(zip(sites, scaled))


def _batches(
  rows: Rows, paths: int, nodes: tuple[np.ndarray, np.ndarray]
) -> Iterator[Points]:
  """All points of all paths in equal numbers that fit side by side."""
  place, weight = nodes
  count = gradients.steps_at_once(rows, paths * len(place))
  extra = (0, -paths * len(place) % count)
  path = np.pad(np.repeat(np.arange(paths), len(place)), extra)
  place = np.pad(np.tile(place, paths), extra)
  weight = np.pad(np.tile(weight, paths), extra)
  for first in range(0, len(path), count):
    some = slice(first, first + count)
    yield Points(path[some], place[some], weight[some])


def _acting(
  num_layers: int, sites: list[Site], points: Points, batch: int
) -> np.ndarray:
  """[layers, points x batch] in which layer each row's value is put."""
  layers = np.asarray([site.layer or 0 for site in sites])[points.path]
  return np.arange(num_layers)[:, None] == np.repeat(layers, batch)[None, :]


@functools.partial(jax.jit, static_argnames="name")
def moved_slope(
  model: Gemma,
  rows: Rows,
  target: ResolvedTarget,
  there: pz.nx.NamedArray,
  acts: Bool[Array, "layers batch"],
  name: str,
) -> pz.nx.NamedArray:
  """The gradient by a value put at one site of each row.

  Args:
    model: The model.
    rows: The prompts.
    target: What is measured.
    there: The value put there, {batch, …}.
    acts: In which layer each row takes it.
    name: The site's name.
  """

  def total(there: pz.nx.NamedArray) -> jax.Array:
    def make(
      inner: pz.nn.Layer,
      name: str,
      layers: tuple[int, ...] | None,
      acts: pz.nx.NamedArray,
    ) -> pz.nn.Layer:
      return Moved(inner, name, layers, there=there, acts=acts)

    moved = wrap_by_row(model, (name,), acts, make)
    return evaluate(moved, rows, target, {})[0].sum()

  return jax.grad(total)(there)
