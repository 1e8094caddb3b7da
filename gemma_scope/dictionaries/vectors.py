"""Between what a caller gives (plain or named) and rows of vectors.

A plain array [..., d] is reshaped to [rows, d] and back. A named array has the
axes of a site: those that make up its vector (`embedding`; `heads` and
`projection` of z) are merged into the last axis, and all others are kept, in
their order.
"""

from collections.abc import Callable
import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from penzai import pz

from gemma_scope import axes
from gemma_scope.errors import SiteError
from gemma_scope.sites import Site

_RUN = (axes.BATCH, axes.SEQ)
Unpacked = tuple[Float[Array, "... d"], "Shape"]


@dataclasses.dataclass(frozen=True)
class Shape:
  """What was taken apart, to put results together in the same way.

  Attributes:
    kept: Names of the axes in front of the vector; None for a plain array.
    heads: Number of heads of the vector, where it came as heads x projection.
  """

  kept: tuple[str, ...] | None
  heads: int | None = None


def vector_axes(site: Site) -> tuple[str, ...]:
  """The axes that make up one vector at a site: ("embedding",) for most."""
  return tuple(name for name in site.info.axes if name not in _RUN)


def unpack(x: Any, vector: tuple[str, ...], width: int, what: str) -> Unpacked:
  """Plain [..., width], and how to pack a result like it.

  Args:
    x: A plain or named array.
    vector: The axes of one vector, in a named array.
    width: How many numbers a vector has.
    what: For errors: what the array should hold.

  Raises:
    SiteError: It holds other vectors than these.
  """
  if not isinstance(x, pz.nx.NamedArray | pz.nx.NamedArrayView):
    x = jnp.asarray(x)
    if x.ndim == 0 or x.shape[-1] != width:
      raise _misshapen(what, f"shape {x.shape}", f"[..., {width}]")
    return x, Shape(None)
  sizes = dict(x.named_shape)
  found = [sizes.get(name, 0) for name in vector]
  if x.positional_shape or math.prod(found) != width:
    wanted = f"{{{', '.join(vector)}}} of {width} numbers"
    raise _misshapen(what, f"axes {sizes}, {x.positional_shape}", wanted)
  kept = tuple(str(name) for name in sizes if name not in vector)
  data = x.unwrap(*kept, *vector)
  heads = sizes.get(axes.HEADS) if axes.HEADS in vector else None
  flat = data.reshape(*data.shape[: len(kept)], width)
  return flat, Shape(kept, heads)


def pack(array: Array, shape: Shape, vector: tuple[str, ...]) -> Any:
  """Gives a result [..., width] the form that `unpack` took apart.

  Args:
    array: Plain, with the axes in front as `unpack` returned them.
    shape: From `unpack`; its `heads` splits the vector of z.
    vector: The axes of the result's vector.

  Raises:
    SiteError: The number of heads of z is not known.
  """
  if shape.kept is None:
    return array
  if axes.HEADS in vector:
    if shape.heads is None:
      raise SiteError(
        "How many heads the rebuilt z has is not known.",
        received="About(heads=None)",
        instead="dictionary.with_about(dataclasses.replace(dictionary.about, "
        "heads=4)), with the model's number of heads",
      )
    array = array.reshape(*array.shape[:-1], shape.heads, -1)
  return pz.nx.wrap(array, *shape.kept, *vector)


def by_rows(
  function: Callable[[Array], Array], x: Float[Array, "... d"]
) -> Float[Array, "... e"]:
  """Applies a function of [rows, d] to [..., d]."""
  rows = function(x.reshape(-1, x.shape[-1]))
  return rows.reshape(*x.shape[:-1], rows.shape[-1])


def product(
  x: Float[Array, "rows a"], weights: Float[Array, "a b"]
) -> Float[Array, "rows b"]:
  """The matrix product in float32, whatever the dtypes."""
  return jnp.matmul(
    x.astype(jnp.float32),
    weights.astype(jnp.float32),
    precision=jax.lax.Precision.HIGHEST,
  )


def _misshapen(what: str, received: str, wanted: str) -> SiteError:
  return SiteError(
    f"The array does not hold {what}.",
    received=received,
    instead=f"an array {wanted}",
  )
