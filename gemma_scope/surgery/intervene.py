"""Putting interventions into a model.

    edited = intervene(model, [
        steer("resid_post[12]", direction, scale=4.0, positions=all_but_bos()),
        ablate("z[3]", heads=[1]),
    ])

Order: sites act in the order in which the model computes them; at one site the
interventions act in the order of the list, each on what the one before left,
and all of them after what earlier surgery put there. An intervention on many
layers stays one layer of a scanned stack; one with an array for each site does
too where it covers every period, and otherwise cuts the scan at its layers.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from penzai import pz

from gemma_scope import axes
from gemma_scope.errors import ConfigError, TextError
from gemma_scope.model.context import Context
from gemma_scope.model.gemma import Gemma
from gemma_scope.model.site_layer import ActiveSite
from gemma_scope.model.stack import active_sites
from gemma_scope.sites import Site
from gemma_scope.surgery.addresses import axis_sizes, sites_and_units
from gemma_scope.surgery.interventions.protocol import Change, Intervention
from gemma_scope.surgery.interventions.where import Where
from gemma_scope.surgery.select import not_there, wrap_sites


@pz.pytree_dataclass
class Intervened(ActiveSite):
  """Applies a change to what is chosen of the value that passes a site.

  Attributes:
    inner: The layer that was here before; runs first.
    name: The site's name.
    layers: The decoder layers it acts on; None where the site has no layer.
    change: What happens.
    where: What of the value it happens to.
  """

  inner: pz.nn.Layer
  name: str = dataclasses.field(metadata={"pytree_node": False})
  layers: tuple[int, ...] | None = dataclasses.field(
    metadata={"pytree_node": False}
  )
  change: Change
  where: Where

  def __call__(
    self, value: pz.nx.NamedArray, /, *, context: Context, **side_inputs
  ) -> pz.nx.NamedArray:
    """Returns the value of `inner`, changed where it is chosen."""
    value = self.inner(value, context=context, **side_inputs)
    precise = value.astype(jnp.float32)
    mask = self.where.mask(value, self.name, context)
    changed = self.change(precise, self.name, context)
    chosen = True if mask is None else mask
    new = pz.nx.nmap(jnp.where)(chosen, changed, precise)
    return new.order_like(value).astype(value.dtype)


def intervene(
  model: Gemma, interventions: Iterable[Intervention] | Intervention
) -> Gemma:
  """Returns a model in which the interventions act.

  Args:
    model: The model, perhaps with dictionaries spliced in.
    interventions: What `steer`, `ablate`, `patch` and their like return, in
      the order in which they act at one site.

  Raises:
    GemmaScopeError: If a site, head, unit or latent is not there, or an array
      does not fit.
  """
  if isinstance(interventions, Intervention):
    interventions = (interventions,)
  for one in interventions:
    if not isinstance(one, Intervention):
      raise ConfigError(
        "This is no intervention.",
        received=f"{one!r:.80}",
        instead='steer("resid_post[12]", direction), ablate("z[3]"), …',
      )
    model = _put(model, one)
  return model


def _put(model: Gemma, one: Intervention) -> Gemma:
  sites, units = sites_and_units(one.at, model.stack.num_layers)
  where = one.where
  if units is not None:
    if where.units is not None:
      raise ConfigError(
        "The units are named twice.",
        received=f"{one.at} and units={list(where.units)[:8]}",
        instead="the address with its indices, or units, not both",
      )
    where = dataclasses.replace(where, units=units)
  fitted = {}
  for site in sites:
    sizes = sizes_at(model, site)
    if axes.LATENTS in site.info.axes and axes.LATENTS not in sizes:
      raise not_there(site)
    where.check(site, sizes)
    fitted[site] = one.change.fit(site, sizes)
  make = functools.partial(
    _make, where, fitted, one.change.by_site, model.stack.num_periods
  )
  return wrap_sites(model, sites, make)


def _make(
  where: Where,
  fitted: Mapping[Site, Change],
  by_site: bool,
  num_periods: int,
  inner: pz.nn.Layer,
  name: str,
  layers: tuple[int, ...] | None,
) -> pz.nn.Layer:
  """The layer, or the layers one in another, for sites that share a block."""
  first = None if layers is None else layers[0]
  change = fitted[Site(name, first)]
  if layers is None or len(layers) == 1 or not by_site:
    return Intervened(inner, name, layers, change, where)
  changes = [fitted[Site(name, layer)] for layer in layers]
  if len(layers) == num_periods:
    change = _stacked(changes)
    return Intervened(inner, name, layers, change, where)
  for layer, change in zip(layers, changes):
    inner = Intervened(inner, name, (layer,), change, where)
  return inner


def _stacked(changes: list[Change]) -> Change:
  """Changes of equal structure as one, its arrays stacked along `layer`."""

  def stack(*arrays: pz.nx.NamedArray) -> pz.nx.NamedArray:
    names = tuple(arrays[0].named_axes)
    data = jnp.stack([a.unwrap(*names) for a in arrays])
    return pz.nx.wrap(data, axes.LAYER, *names)

  return jax.tree.map(
    lambda *leaves: (
      stack(*leaves) if pz.nx.is_namedarray(leaves[0]) else leaves[0]
    ),
    *changes,
    is_leaf=pz.nx.is_namedarray,
  )


def check_positions(
  model: Gemma, prompts: Sequence[np.ndarray], new: int = 0
) -> None:
  """Refuses prompts that have no token where an intervention acts.

  Args:
    model: The model, perhaps with interventions.
    prompts: Token ids of every sequence that it shall run on.
    new: How many tokens may be generated behind each.

  Raises:
    TextError: If an intervention would never act, or not in every prompt.
  """
  for layer in active_sites(model):
    if not isinstance(layer, Intervened) or layer.where.positions is None:
      continue
    missing = layer.where.positions.missing(prompts, new)
    if missing is not None:
      raise TextError(
        f"An edit at {layer.name} names a token that the prompt has not.",
        received=missing,
        instead="positions inside every prompt (negative ones count from its "
        "end), a token that is in it, or all_but_bos()",
      )


def sizes_at(model: Gemma, site: Site) -> dict[str, int]:
  """Axis -> size at a site, `latents` of a spliced dictionary included."""
  sizes = axis_sizes(site, model.config)
  if axes.LATENTS in site.info.axes:
    for reader in active_sites(model):
      count = getattr(reader, "num_latents", None)
      acts = reader.layers is None or site.layer in reader.layers
      if count is not None and acts and _name(reader) == site.base:
        sizes[axes.LATENTS] = count
  return sizes


def _name(site: pz.nn.Layer) -> str:
  return getattr(site, "name", "")
