"""What every intervention is: a change, the sites it goes to, and what of them.

    new value = where(chosen, change(value), value)

A change is a small frozen pytree: its arrays are leaves, so that another
direction or strength compiles nothing anew. It computes in float32; the result
is cast back to the dtype of the site.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from penzai import pz

from gemma_scope import axes
from gemma_scope.errors import SiteError
from gemma_scope.model.context import Context
from gemma_scope.sites import Site
from gemma_scope.surgery.addresses import Address
from gemma_scope.surgery.interventions.where import Where

# One array for every site, or one for each: such as a capture.
Given = float | np.ndarray | jax.Array | pz.nx.NamedArray | Mapping[Site, Any]


@pz.pytree_dataclass
class Change(pz.Struct):
  """What happens to a value.

  Fields that hold arrays may hold a mapping from sites in their place, until
  `fit` chooses.
  """

  def __call__(
    self, value: pz.nx.NamedArray, name: str, context: Context
  ) -> pz.nx.NamedArray:
    """The changed value.

    Args:
      value: The value at the site, float32.
      name: The site's name.
      context: Placement of the tokens, and the past of a cache.
    """
    raise NotImplementedError

  def fit(self, site: Site, sizes: Mapping[str, int]) -> Self:
    """The change as one site needs it: its arrays named and checked.

    Args:
      site: The site.
      sizes: Axis -> size, `batch`, `seq` and `kv_seq` left out.

    Raises:
      SiteError: If an array does not fit the site.
    """
    arrays = {
      f.name: fitted(getattr(self, f.name), site, sizes)
      for f in dataclasses.fields(self)
      if f.metadata.get("pytree_node", True)
    }
    return dataclasses.replace(self, **arrays)

  @property
  def by_site(self) -> bool:
    """Whether it holds another array for each site."""
    fields = (getattr(self, f.name) for f in dataclasses.fields(self))
    return any(isinstance(value, Mapping) for value in fields)


@dataclasses.dataclass(frozen=True, eq=False)
class Intervention:
  """One edit, not yet in a model.

  Attributes:
    at: Where; see `gemma_scope.surgery.addresses`.
    change: What happens to the value there.
    where: Which heads, units and tokens it happens to.
  """

  at: Address
  change: Change
  where: Where


def fitted(given: Any, site: Site, sizes: Mapping[str, int]) -> Any:
  """An array with the axes of a site, checked; None stays None.

  Args:
    given: A number, an array over the last axes of the site, a named array
      over any of them, or a mapping from sites to these.
    site: The site.
    sizes: Axis -> size, `batch`, `seq` and `kv_seq` left out.

  Raises:
    SiteError: If it does not fit.
  """
  if given is None:
    return None
  if isinstance(given, Mapping):
    given = array_for(given, site)
  if not isinstance(given, pz.nx.NamedArray | pz.nx.NamedArrayView):
    data = jnp.asarray(given, jnp.float32)
    names = site.info.axes[len(site.info.axes) - data.ndim :]
    inside = data.ndim <= len(site.info.axes) and all(n in sizes for n in names)
    if inside and data.shape == tuple(sizes[n] for n in names):
      return pz.nx.wrap(data, *names)
    raise _misfit(site, sizes, f"an array of shape {data.shape}")
  for axis, size in given.named_shape.items():
    name = str(axis)
    free = name in (axes.BATCH, axes.SEQ, axes.KV_SEQ)
    known = name in site.info.axes and (free or sizes.get(name, size) == size)
    if not known and not (name in sizes and size == 1):
      raise _misfit(site, sizes, f"named axes {dict(given.named_shape)}")
  names = tuple(n for n in site.info.axes if n in given.named_shape)
  return pz.nx.wrap(given.unwrap(*names).astype(jnp.float32), *names)


def array_for(given: Mapping[Site, Any], site: Site) -> Any:
  """What a mapping holds for a site; strings are as good as sites.

  Raises:
    SiteError: If it holds nothing for the site.
  """
  for key in (site, str(site)):
    if key in given:
      return given[key]  # type: ignore[index]
  raise SiteError(
    "There is no array for one of the sites to be edited.",
    received=f"{site}; there are {', '.join(map(str, given)):.200}",
    instead=f"one for {site} too, such as from a capture of all the sites",
  )


def _misfit(site: Site, sizes: Mapping[str, int], received: str) -> SiteError:
  last = [f"{name} {size}" for name, size in sizes.items()]
  return SiteError(
    f"An array does not fit the site {site}.",
    received=received,
    instead="a number, or an array over the last of its axes "
    f"({', '.join(last)}), or a named array",
  )
