"""Taps record what passes a site; offsets and replacements change it.

All wrap the layer that stands there and act on some decoder layers only. An
offset of zero changes no value and has the gradient of the site.
"""

import dataclasses

from penzai import pz

from gemma_scope.errors import SiteError
from gemma_scope.model.context import Context
from gemma_scope.model.site_layer import ActiveSite


@pz.pytree_dataclass
class Tap(ActiveSite):
  """Records the value that passes, after everything inside it.

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

  def __call__(
    self, value: pz.nx.NamedArray, /, *, context: Context, **side_inputs
  ) -> pz.nx.NamedArray:
    """Returns the value of `inner`, recorded on the tape."""
    value = self.inner(value, context=context, **side_inputs)
    context.tape.record(self.name, value)
    return value


@pz.pytree_dataclass
class Offset(ActiveSite):
  """Adds the input given for its site, an array like the value.

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

  def __call__(
    self, value: pz.nx.NamedArray, /, *, context: Context, **side_inputs
  ) -> pz.nx.NamedArray:
    """Returns the value of `inner` plus the offset."""
    value = self.inner(value, context=context, **side_inputs)
    return value + input_of(self, context)


@pz.pytree_dataclass
class Replacement(ActiveSite):
  """Puts the input given for its site in the place of the value.

  What leads to the value alone is then not computed.

  Attributes:
    inner: The layer that was here before.
    name: The site's name.
    layers: The decoder layers it acts on; None where the site has no layer.
  """

  inner: pz.nn.Layer
  name: str = dataclasses.field(metadata={"pytree_node": False})
  layers: tuple[int, ...] | None = dataclasses.field(
    metadata={"pytree_node": False}
  )

  def __call__(
    self, value: pz.nx.NamedArray, /, *, context: Context, **side_inputs
  ) -> pz.nx.NamedArray:
    """Returns the input, whatever `value` is."""
    del value, side_inputs
    return input_of(self, context)


def input_of(site: ActiveSite, context: Context) -> pz.nx.NamedArray:
  """The array given for a site.

  Raises:
    SiteError: If there is none.
  """
  if site.name in context.inputs:
    return context.inputs[site.name]
  kind = type(site).__name__
  raise SiteError(
    f"{kind} at a site was not given its array.",
    received=f"a model with {kind} at {site.name}, run without an input there",
    instead=f"inputs={{Site({site.name!r}, layer): array}}",
  )
