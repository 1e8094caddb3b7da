"""Sites: the named identity layers that a model definition contains.

A site costs nothing when compiled. Surgery replaces it by a layer that
records or changes the value there.
"""

from collections.abc import Callable
import dataclasses
from typing import Any, TypeVar

import jax
from penzai import pz

from gemma_scope.model.sharding import sharded

LayerT = TypeVar("LayerT", bound=pz.nn.Layer)


@pz.pytree_dataclass
class SiteLayer(pz.nn.Layer):
  """The identity, with the name of the activation that passes through.

  Attributes:
    name: A key of `gemma_scope.sites.SITES`.
  """

  name: str = dataclasses.field(metadata={"pytree_node": False})

  def __call__(
    self, value: pz.nx.NamedArray, /, **_side_inputs
  ) -> pz.nx.NamedArray:
    """Returns `value`."""
    return value


@pz.pytree_dataclass
class ShardedSite(SiteLayer):
  """A site of a model on a mesh: says how the value lies there.

  Attributes:
    name: A key of `gemma_scope.sites.SITES`.
    mesh: The mesh; axes go over it by `sharding.ACTIVATION_RULES`.
  """

  name: str = dataclasses.field(metadata={"pytree_node": False})
  mesh: jax.sharding.Mesh = dataclasses.field(metadata={"pytree_node": False})

  def __call__(
    self, value: pz.nx.NamedArray, /, **_side_inputs
  ) -> pz.nx.NamedArray:
    """Returns `value`, laid out over the mesh."""
    return sharded(value, self.mesh)


def make_site(name: str, mesh: jax.sharding.Mesh | None = None) -> SiteLayer:
  """A site, on a mesh if there is one."""
  return SiteLayer(name) if mesh is None else ShardedSite(name, mesh)


@pz.pytree_dataclass
class ActiveSite(pz.nn.Layer):
  """Base of what surgery puts in the place of a `SiteLayer`.

  Subclasses wrap the layer they replace, so that edits compose in the order in
  which they were made. The stack calls them for the decoder layers in `layers`
  only: where they do not act, what they wrap stands in their place.

  Attributes:
    inner: The layer that was here before; runs first.
    name: The site's name.
    layers: The decoder layers it acts on; None where the site has no layer.
  """

  inner: pz.nn.Layer
  name: str = dataclasses.field(metadata={"pytree_node": False})
  layers: tuple[int, ...] | None = dataclasses.field(
    metadata={"pytree_node": False}
  )


@pz.pytree_dataclass
class SharingSite(ActiveSite):
  """An active site that uses a layer the stack holds for several sites.

  Attributes:
    inner: The layer that was here before; runs first.
    name: The site's name.
    layers: The decoder layers it acts on; None where the site has no layer.
    uses: Key of the layer in `Stack.shared`.
    crosses: Whether it exchanges values with sites of other decoder layers,
      which the stack then runs one by one.
    ahead: Whether it needs values of later layers, which the stack then finds
      out in a rehearsal.
  """

  inner: pz.nn.Layer
  name: str = dataclasses.field(metadata={"pytree_node": False})
  layers: tuple[int, ...] | None = dataclasses.field(
    metadata={"pytree_node": False}
  )
  uses: str = dataclasses.field(metadata={"pytree_node": False})
  crosses: bool = dataclasses.field(metadata={"pytree_node": False})
  ahead: bool = dataclasses.field(metadata={"pytree_node": False})


@pz.pytree_dataclass
class ActiveLayer(pz.nn.Layer):
  """Base of what surgery puts around a layer that is no site.

  Like an `ActiveSite` it acts on some decoder layers, and gives way to what it
  wraps elsewhere.

  Attributes:
    inner: The layer inside.
    layers: The decoder layers it acts on; None outside of them.
  """

  inner: pz.nn.Layer
  layers: tuple[int, ...] | None = dataclasses.field(
    metadata={"pytree_node": False}
  )


def acting_on(block: LayerT, layer: int) -> LayerT:
  """A block as surgery wants it for one decoder layer.

  Active sites that do not act on `layer` give way to what they wrap; the
  others lose their list of layers, so that equal layers have equal programs.
  """

  def settle(site: pz.nn.Layer) -> pz.nn.Layer:
    if isinstance(site, ActiveLayer):
      inner = acting_on(site.inner, layer)
    elif isinstance(site, ActiveSite):
      inner = settle(site.inner)
    else:
      return site
    if site.layers is not None and layer not in site.layers:
      return inner
    if isinstance(site, ActiveLayer):
      return dataclasses.replace(site, inner=inner, layers=None)
    parts = {n: settle(part) for n, part in inner_sites(site).items()}
    return dataclasses.replace(site, inner=inner, layers=None, **parts)

  return replace_layers(block, (ActiveSite, ActiveLayer), settle)


def replace_layers(
  layer: LayerT,
  kinds: tuple[type[pz.nn.Layer], ...],
  make: Callable[[Any], pz.nn.Layer],
) -> LayerT:
  """A layer in which `make` changed the outermost layers of some kinds.

  What `pz.select(layer).at_instances_of(kinds).apply(make)` does, in a fifth
  of the time: every program that is traced asks it of every decoder layer.
  """

  def wanted(node: Any) -> bool:
    return isinstance(node, kinds)

  nodes, structure = jax.tree_util.tree_flatten(layer, is_leaf=wanted)
  if not any(wanted(node) for node in nodes):
    return layer
  return structure.unflatten(make(n) if wanted(n) else n for n in nodes)


def without_scopes(layer: Any) -> Any:
  """What stands inside the `ActiveLayer`s around a layer."""
  while isinstance(layer, ActiveLayer):
    layer = layer.inner
  return layer


def inner_sites(site: ActiveSite) -> dict[str, "SiteLayer | ActiveSite"]:
  """Field -> site of an active site that has sites of its own."""
  fields = {f.name: getattr(site, f.name) for f in dataclasses.fields(site)}
  return {
    name: value
    for name, value in fields.items()
    if name != "inner" and isinstance(value, SiteLayer | ActiveSite)
  }
