"""One-line edits: a function of the value at some sites.

half = edit(model, "mlp_write[10]", lambda value: value * 0.5)
"""

from collections.abc import Callable, Iterable
import dataclasses
import functools

from penzai import pz

from gemma_scope.model.context import Context
from gemma_scope.model.gemma import Gemma
from gemma_scope.model.site_layer import ActiveSite
from gemma_scope.sites import Site
from gemma_scope.surgery.select import wrap_sites

ValueFunction = Callable[[pz.nx.NamedArray], pz.nx.NamedArray]


@pz.pytree_dataclass(has_implicitly_inherited_fields=True)
class Edit(ActiveSite):
  """Applies a function to the value that passes a site.

  Attributes:
    function: From the value to the new one, same axes; must be JAX-traceable.
  """

  function: ValueFunction = dataclasses.field(
    kw_only=True, metadata={"pytree_node": False}
  )

  def __call__(
    self, value: pz.nx.NamedArray, /, *, context: Context, **side_inputs
  ) -> pz.nx.NamedArray:
    """Returns the function of the value of `inner`."""
    value = self.inner(value, context=context, **side_inputs)
    return self.function(value)


def edit(
  model: Gemma,
  sites: Iterable[Site | str] | Site | str,
  function: ValueFunction,
) -> Gemma:
  """Returns a model in which `function` changes the value at `sites`.

  Args:
    model: The model.
    sites: Addresses, such as "mlp_write[10]" or "z[:]".
    function: From a named array to one of the same axes. Name it and use it
      again: another function object compiles again.

  Raises:
    SiteError: If the model has no such site.
  """
  return wrap_sites(model, sites, functools.partial(Edit, function=function))
