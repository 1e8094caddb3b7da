"""Finding the sites of a model and putting layers there.

Every function takes a model and returns another; nothing is patched in place.
"""

from collections.abc import Callable, Iterable
import dataclasses

from penzai import pz

from gemma_scope.model.block import Block
from gemma_scope.model.gemma import Gemma
from gemma_scope.model.site_layer import ActiveSite, SiteLayer
from gemma_scope.model.stack import Stack
from gemma_scope.sites import Site, resolve
from gemma_scope.surgery.taps import Offset, Replacement, Tap

MakeLayer = Callable[[pz.nn.Layer, str, tuple[int, ...] | None], pz.nn.Layer]


def tap(model: Gemma, sites: Iterable[Site | str]) -> Gemma:
  """Returns a model that records the values at `sites`."""
  return wrap_sites(model, sites, Tap)


def offset(model: Gemma, sites: Iterable[Site | str]) -> Gemma:
  """Returns a model that adds an input of its own at each of `sites`."""
  return wrap_sites(model, sites, Offset)


def replace(model: Gemma, sites: Iterable[Site | str]) -> Gemma:
  """Returns a model that takes the value at each of `sites` as an input."""
  return wrap_sites(model, sites, Replacement)


def wrap_sites(
  model: Gemma, sites: Iterable[Site | str] | Site | str, make: MakeLayer
) -> Gemma:
  """Wraps what stands at each site in a new layer.

  Args:
    model: The model.
    sites: Addresses, such as `Site("z", 3)` or "z[3]".
    make: Called with the layer at the site, the site's name and the decoder
      layers to act on, which share one block in a scanned stack.

  Raises:
    SiteError: If the model has no such site.
  """
  by_name: dict[str, set[int | None]] = {}
  for site in resolve(sites, model.stack.num_layers):
    by_name.setdefault(site.name, set()).add(site.layer)
  stack = model.stack
  size = len(stack.period)
  period = tuple(
    _wrap_block(block, range(k, size * stack.num_periods, size), by_name, make)
    for k, block in enumerate(stack.period)
  )
  first = size * stack.num_periods
  rest = tuple(
    _wrap_block(block, range(first + i, first + i + 1), by_name, make)
    for i, block in enumerate(stack.rest)
  )
  stack = dataclasses.replace(stack, period=period, rest=rest)
  return _wrap_outer(dataclasses.replace(model, stack=stack), by_name, make)


def stop_after(model: Gemma, sites: Iterable[Site | str]) -> Gemma:
  """Returns a model that runs no layer past the last of `sites`.

  Sites behind the stack (`final_norm`, `logits`) need all layers.
  """
  stop = 0
  for site in resolve(sites, model.stack.num_layers):
    if site.layer is not None:
      stop = max(stop, site.layer + 1)
    elif site.name != "embed":
      stop = model.stack.num_layers
  stack: Stack = dataclasses.replace(model.stack, stop=stop)
  return dataclasses.replace(model, stack=stack)


def _wrap_block(
  block: Block,
  layers: range,
  by_name: dict[str, set[int | None]],
  make: MakeLayer,
) -> Block:
  """Wraps the sites of one block that stands for `layers`."""

  def wrap(layer: SiteLayer | ActiveSite) -> pz.nn.Layer:
    asked = by_name.get(layer.name, set())
    chosen = tuple(i for i in layers if i in asked)
    return make(layer, layer.name, chosen) if chosen else layer

  found = pz.select(block).at_instances_of((SiteLayer, ActiveSite))
  return found.apply(wrap)


def _wrap_outer(
  model: Gemma, by_name: dict[str, set[int | None]], make: MakeLayer
) -> Gemma:
  """Wraps the sites outside the stack."""
  fields = {"embed": "embed", "final_norm": "final", "logits": "logits"}
  changed = {
    field: make(getattr(model, field), name, None)
    for name, field in fields.items()
    if name in by_name
  }
  return dataclasses.replace(model, **changed)
