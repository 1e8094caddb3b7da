"""Arrays of rows on the device: scattered into in place, gathered from.

A buffer is [parts, slots, width], its parts over the mesh's `data` axis. Rows
that a shard computed are kept by that shard, and batches are gathered from
every shard's own rows, so neither needs messages. Shapes never depend on how
many rows count: those that do not get a slot past the end, and are dropped.
"""

from collections.abc import Callable, Mapping
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from gemma_scope.model.sharding import DATA
from gemma_scope.sites import Site

Arrays = dict[Site, jax.Array]
Shardings = Mapping[Site, NamedSharding | None]


def empty(
  widths: Mapping[Site, int],
  shape: tuple[int, int],
  dtype: Any,
  shardings: Shardings,
) -> Arrays:
  """Buffers of zeros, one a site.

  Args:
    widths: Width of each site's rows.
    shape: (parts, slots).
    dtype: Of the rows.
    shardings: How [rows, width] of each site lies on the mesh.
  """
  found: Arrays = {}
  for site, width in widths.items():
    where = buffer_sharding(shardings[site])
    found[site] = jnp.zeros((*shape, width), dtype, device=where)
  return found


def buffer_sharding(where: NamedSharding | None) -> NamedSharding | None:
  """The layout [parts, slots, width] for rows that lie as `where`."""
  if where is None:
    return None
  rows, *width = where.spec
  return NamedSharding(where.mesh, PartitionSpec(rows, None, *width))


class Kernels:
  """The compiled operations on buffers that lie in one way."""

  def __init__(self, shardings: Shardings):
    """Compiles nothing yet.

    Args:
      shardings: How [rows, width] of each site lies on the mesh.
    """
    one = next(iter(shardings.values()))
    self._parts = one and NamedSharding(one.mesh, PartitionSpec(DATA))
    # Without a mesh there is nothing to say about where results lie.
    self._rows = dict(shardings) if one else None
    kept = {s: buffer_sharding(where) for s, where in shardings.items()}
    self._buffers = kept if one else None

  @functools.cached_property
  def scatter(self) -> Callable[[Arrays, Arrays, Any], Arrays]:
    """Puts rows into slots, in place.

    The buffers given are used up. Takes values [parts * rows, width] and slots
    [parts, rows], those past the last one for rows that are dropped.
    """
    return jax.jit(_scatter, donate_argnums=0, out_shardings=self._buffers)

  @functools.cached_property
  def gather(self) -> Callable[[Arrays, Any], Arrays]:
    """Rows [parts * rows, width] of slots [parts, rows]."""
    return jax.jit(_gather, out_shardings=self._rows)

  @functools.cached_property
  def gather_anywhere(self) -> Callable[[Arrays, Any], Arrays]:
    """Rows [rows, width] of places [rows] in the parts laid end to end."""
    return jax.jit(_gather_anywhere, out_shardings=self._rows)

  def place(self, slots: Any) -> jax.Array:
    """Slots [parts, rows] on the devices of their parts."""
    if self._parts is None:
      return jnp.asarray(slots)
    return jax.device_put(slots, self._parts)


# The parts are a batch axis of scatters and gathers, so that the compiler
# leaves every shard its own; the tests look into the compiled programs for
# messages.


def _scatter(buffers: Arrays, values: Arrays, slots: jax.Array) -> Arrays:
  def put(buffer: jax.Array, at: jax.Array, rows: jax.Array) -> jax.Array:
    return buffer.at[at].set(rows, mode="drop", unique_indices=True)

  found: Arrays = {}
  for site, buffer in buffers.items():
    rows = values[site].reshape(*slots.shape, buffer.shape[-1])
    found[site] = jax.vmap(put)(buffer, slots, rows)
  return found


def _gather(buffers: Arrays, slots: jax.Array) -> Arrays:
  def get(buffer: jax.Array, at: jax.Array) -> jax.Array:
    return buffer.at[at].get(mode="promise_in_bounds", unique_indices=True)

  found = {s: jax.vmap(get)(b, slots) for s, b in buffers.items()}
  return {s: rows.reshape(slots.size, -1) for s, rows in found.items()}


def _gather_anywhere(buffers: Arrays, places: jax.Array) -> Arrays:
  # Two indices, for parts laid end to end can be more than int32 counts.
  size = next(iter(buffers.values())).shape[1]
  part, slot = places // size, places % size
  return {s: b[part, slot] for s, b in buffers.items()}
