"""Layers of surgery that act in another decoder layer for each row of a batch.

Which rows an instance acts on is an array it carries, so that one compiled
program serves every choice of layers.
"""

from collections.abc import Callable, Iterable

import jax
from jaxtyping import Array, Bool
from penzai import pz

from gemma_scope import axes
from gemma_scope.model.gemma import Gemma
from gemma_scope.sites import SITES, Site
from gemma_scope.surgery.select import wrap_sites

# From (the layer at the site, its name, its decoder layers, which rows it acts
# on) to the layer in its place.
MakeByRow = Callable[
  [pz.nn.Layer, str, tuple[int, ...] | None, pz.nx.NamedArray], pz.nn.Layer
]


def wrap_by_row(
  model: Gemma,
  names: Iterable[str],
  acts: Bool[Array, "layers batch"],
  make: MakeByRow,
) -> Gemma:
  """Wraps some sites in every decoder layer.

  Args:
    model: The model.
    names: Names of sites; one outside the decoder layers acts where the first
      row of `acts` says so.
    acts: Whether it acts on each row, layer by layer.
    make: Called with the layer at the site, the site's name, its decoder
      layers, and {batch} which rows it acts on; with an axis `layer` in front
      in a block of a scanned stack, which is cut off before the block runs.
  """
  size = len(model.stack.period)
  scanned = size * model.stack.num_periods

  def wrap(
    inner: pz.nn.Layer, name: str, layers: tuple[int, ...] | None
  ) -> pz.nn.Layer:
    first = 0 if layers is None else layers[0]
    if layers is None or first >= scanned:
      return make(inner, name, layers, pz.nx.wrap(acts[first], axes.BATCH))
    rows = acts[first % size : scanned : size]
    return make(inner, name, layers, pz.nx.wrap(rows, axes.LAYER, axes.BATCH))

  every = range(model.stack.num_layers)
  sites = [
    Site(name, layer)
    for name in names
    for layer in (every if SITES[name].per_layer else (None,))
  ]
  return wrap_sites(model, sites, wrap)


def where_acting(
  acts: pz.nx.NamedArray, there: pz.nx.NamedArray, value: pz.nx.NamedArray
) -> pz.nx.NamedArray:
  """`there` on the rows acted on, `value` on the others; axes of `value`."""
  names = tuple(value.named_axes)
  data = value.unwrap(*names)
  shape = [1] * data.ndim
  shape[names.index(axes.BATCH)] = -1
  chosen = acts.unwrap(axes.BATCH).reshape(shape)
  other = there.unwrap(*names).astype(data.dtype)
  return pz.nx.wrap(jax.numpy.where(chosen, other, data), *names)
