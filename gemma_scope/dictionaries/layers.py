"""Values of several sites: an axis `layer` in front, one entry a site.

All sites of one dictionary have vectors of one width, so that a plain array
[layer, ..., d] or a named one with an axis `layer` holds them.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from penzai import pz

from gemma_scope import axes
from gemma_scope.dictionaries.protocol import Values
from gemma_scope.errors import ConfigError, SiteError


def split(values: Values, count: int) -> list[Values]:
  """One array for each of `count` sites.

  Args:
    values: [layer, ..., d], or named with an axis `layer`.
    count: How many sites there are.

  Raises:
    SiteError: It has another number of layers.
  """
  if isinstance(values, pz.nx.NamedArray | pz.nx.NamedArrayView):
    found = dict(values.named_shape).get(axes.LAYER, 0)
    if found == count:
      names = [n for n in values.named_shape if n != axes.LAYER]
      plain = values.unwrap(axes.LAYER, *names)
      return [pz.nx.wrap(plain[i], *names) for i in range(count)]
    received = f"axes {dict(values.named_shape)}"
  else:
    values = jnp.asarray(values)
    if values.ndim > 1 and values.shape[0] == count:
      return [values[i] for i in range(count)]
    received = f"shape {values.shape}"
  raise SiteError(
    f"The dictionary has {count} sites, and needs a vector from each.",
    received=received,
    instead=f"an array [{count}, ..., d], or named with `layer` of {count}",
  )


def join(parts: Sequence[Values]) -> Values:
  """The inverse of `split`: equal arrays stacked in front.

  Raises:
    ConfigError: They differ in shape.
  """
  first = parts[0]
  names = ()
  if isinstance(first, pz.nx.NamedArray):
    names = tuple(first.named_axes)
    parts = [part.unwrap(*names) for part in parts]
  shapes = sorted({part.shape for part in parts})
  if len(shapes) > 1:
    raise ConfigError(
      "The layers of this dictionary have different numbers of latents.",
      received=f"arrays of shapes {', '.join(map(str, shapes))}",
      instead="encode_at and rebuild_at, which take one layer at a time",
    )
  stacked = jnp.stack(list(parts))
  return pz.nx.wrap(stacked, axes.LAYER, *names) if names else stacked


def add(parts: Sequence[jax.Array]) -> jax.Array:
  """The sum, in the order given, so that it does not depend on its form."""
  total = parts[0]
  for part in parts[1:]:
    total = total + part
  return total
