"""Taps record what passes a site; offsets add to it.

Both wrap the layer that stands there and act on some decoder layers only. An
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
    if self.name not in context.inputs:
      raise SiteError(
        "An offset was not given the array to add.",
        received=f"a model with an Offset at {self.name}, run without one",
        instead=f"inputs={{Site({self.name!r}, layer): array}}",
      )
    return value + context.inputs[self.name]
