"""Finding the sites of a model and putting layers there.

Every function takes a model and returns another; nothing is patched in place.
Parts of sites are found inside what surgery put there before: latents in a
spliced dictionary, the factor of a norm in the norm, which is opened for it.
"""

from collections.abc import Callable, Iterable
import dataclasses

from penzai import pz

from gemma_scope.errors import SiteError
from gemma_scope.model.block import Block
from gemma_scope.model.gemma import Gemma
from gemma_scope.model.site_layer import (
  ActiveSite,
  LayerT,
  SiteLayer,
  inner_sites,
  replace_layers,
)
from gemma_scope.model.stack import Stack
from gemma_scope.sites import Site, resolve
from gemma_scope.surgery.norm_sites import open_norms
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
  asked = set(resolve(sites, model.stack.num_layers))
  wrapper = _Wrapper(asked, make, set())
  model = open_norms(model, {site.name for site in asked})
  stack = model.stack
  size = len(stack.period)
  period = tuple(
    wrapper.block(block, range(k, size * stack.num_periods, size))
    for k, block in enumerate(stack.period)
  )
  first = size * stack.num_periods
  rest = tuple(
    wrapper.block(block, range(first + i, first + i + 1))
    for i, block in enumerate(stack.rest)
  )
  stack = dataclasses.replace(stack, period=period, rest=rest)
  model = wrapper.outer(dataclasses.replace(model, stack=stack))
  for site in sorted(asked - wrapper.found):
    raise not_there(site)
  return model


def stop_after(model: Gemma, sites: Iterable[Site | str]) -> Gemma:
  """Returns a model that runs no layer past the last of `sites`.

  Sites behind the stack (`final_norm`, `logits`) need all layers.
  """
  stop = 0
  for site in resolve(sites, model.stack.num_layers):
    if site.layer is not None:
      stop = max(stop, site.layer + 1)
    elif site.base != "embed":
      stop = model.stack.num_layers
  stack: Stack = dataclasses.replace(model.stack, stop=stop)
  return dataclasses.replace(model, stack=stack)


@dataclasses.dataclass(frozen=True)
class _Wrapper:
  """Wraps sites in new layers, and remembers which it found.

  Attributes:
    asked: The sites to wrap.
    make: As in `wrap_sites`.
    found: Those wrapped so far.
  """

  asked: set[Site]
  make: MakeLayer
  found: set[Site]

  def block(self, block: Block, layers: range) -> Block:
    """Wraps the sites of one block that stands for `layers`."""
    if not any(site.layer in layers for site in self.asked):
      return block
    return self._sites(block, tuple(layers))

  def _sites(self, layer: LayerT, layers: tuple[int, ...] | None) -> LayerT:
    def wrap(site: SiteLayer | ActiveSite) -> pz.nn.Layer:
      return self.site(site, layers)

    return replace_layers(layer, (SiteLayer, ActiveSite), wrap)

  def outer(self, model: Gemma) -> Gemma:
    """Wraps the sites outside the stack."""
    parts = {n: getattr(model, n) for n in ("embed", "final", "logits")}
    changed = {name: self.site(site, None) for name, site in parts.items()}
    changed["final_norm"] = self._sites(model.final_norm, None)
    return dataclasses.replace(model, **changed)

  def site(
    self, site: SiteLayer | ActiveSite, layers: tuple[int, ...] | None
  ) -> pz.nn.Layer:
    """Wraps a site that stands for `layers`, and the sites inside it."""
    inside = self._inside(site, layers)
    every = (None,) if layers is None else layers
    chosen = [i for i in every if self._is_asked(site.name, i)]
    if not chosen:
      return inside
    self.found.update(Site(site.name, layer) for layer in chosen)
    acting = None if layers is None else tuple(i for i in layers if i in chosen)
    return self.make(inside, site.name, acting)

  def _is_asked(self, name: str, layer: int | None) -> bool:
    return any(s.name == name and s.layer == layer for s in self.asked)

  def _inside(
    self, site: pz.nn.Layer, layers: tuple[int, ...] | None
  ) -> pz.nn.Layer:
    """Wraps sites that active ones hold, such as latents."""
    if not isinstance(site, ActiveSite):
      return site
    acts = layers
    if layers is not None and site.layers is not None:
      acts = tuple(i for i in layers if i in site.layers)
    changed = {n: self.site(s, acts) for n, s in inner_sites(site).items()}
    inner = self._inside(site.inner, layers)
    if inner is site.inner and all(
      changed[n] is s for n, s in inner_sites(site).items()
    ):
      return site
    return dataclasses.replace(site, inner=inner, **changed)


def not_there(site: Site) -> SiteError:
  """The error for a part of a site that nothing in the model has."""
  part = site.name.partition(".")[2]
  if part == "latents":
    return SiteError(
      "There are no latents: no dictionary reads this site.",
      received=str(site),
      instead="surgery.splice(model, {site: dictionary}) first",
    )
  return SiteError(
    f"The model has no such part of a site here ({part}).",
    received=str(site),
    instead='splice a dictionary in first, with error="keep" or "freeze" to '
    "have an error",
  )
