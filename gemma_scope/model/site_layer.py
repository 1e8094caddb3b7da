"""Sites: the named identity layers that a model definition contains.

A site costs nothing when compiled. Surgery replaces it by a layer that
records or changes the value there.
"""

import dataclasses

from penzai import pz

from gemma_scope.model.context import Context


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

  def is_active(self, context: Context) -> bool:
    """Whether this layer looks at or changes the value of these layers."""
    del context
    return False


@pz.pytree_dataclass
class ActiveSite(pz.nn.Layer):
  """Base of what surgery puts in the place of a `SiteLayer`.

  Subclasses wrap the layer they replace, so that edits compose in the order in
  which they were made, and act on `layers` only.

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

  def is_active(self, context: Context) -> bool:
    """Whether it, or what it wraps, acts on the layers of `context`."""
    inner = self.inner
    assert isinstance(inner, SiteLayer | ActiveSite)
    return self.acts(context) or inner.is_active(context)

  def acts(self, context: Context) -> bool:
    """Whether it acts on the layers of `context`: on all of them or none."""
    return self.layers is None or context.layers[0] in self.layers
