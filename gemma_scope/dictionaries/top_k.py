"""Which values are the k largest, without sorting, exactly.

The bits of a positive float32, read as a whole number, are in the order of the
values, so the k-th largest is found by deciding its bits from the top: each
pass counts the values that reach a candidate. Counts are whole numbers, so the
answer is the same however the latents are sharded (a pass then costs one
all-reduce of counts), and the cost depends neither on k nor on `vmap`, which
turns `jax.lax.top_k` into a full sort on a CPU. Of equal values the ones with
the lowest index are kept, as by `jax.lax.top_k`. Values below the smallest
normal float32 count as zero.
"""

from collections.abc import Callable
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

_TOP_BIT = 30  # below the sign bit of a float32
_MOST_IN_A_BYTE = 128
_LARGE = 1 << 20


def top_k_mask(
  values: Float[Array, "rows width"], k: int
) -> Bool[Array, "rows width"]:
  """True at the k largest positive values of each row.

  A row with fewer than k positive values keeps those.

  Args:
    values: float32.
    k: How many to keep.
  """
  values = _positive(values)
  allowed = jnp.full((values.shape[0],), k, jnp.int32)
  least = _kth_largest(values, allowed)[:, None]
  reaching = (values >= least) & (values > 0)

  def without_some_ties() -> Bool[Array, "rows width"]:
    above = values > least
    return above | _first(reaching & ~above, allowed - _count(above))

  crowded = (_count(reaching) > allowed).any()
  # Real activations hardly ever tie: the search for an order is rare.
  return jax.lax.cond(crowded, without_some_ties, lambda: reaching)


def batch_top_k_mask(
  values: Float[Array, "rows width"], total: int
) -> Bool[Array, "rows width"]:
  """True at the `total` largest positive values of all rows together.

  Of equal values those of the first rows are kept.

  Args:
    values: float32.
    total: How many to keep in the whole batch.
  """
  values = _positive(values)
  least = _kth_largest(values, jnp.full((1,), total, jnp.int32))[:, None]
  reaching = (values >= least) & (values > 0)

  def without_some_ties() -> Bool[Array, "rows width"]:
    above = values > least
    ties = reaching & ~above
    waiting = _count(ties)
    left = total - _count(above).sum() - (jnp.cumsum(waiting) - waiting)
    return above | _first(ties, jnp.clip(left, 0, waiting))

  crowded = _count(reaching).sum() > total
  return jax.lax.cond(crowded, without_some_ties, lambda: reaching)


def _positive(
  values: Float[Array, "rows width"],
) -> Float[Array, "rows width"]:
  """The normal positive values, 0 in the place of all others."""
  values = jax.lax.stop_gradient(values)
  tiny = jnp.finfo(jnp.float32).tiny
  return jnp.where(values >= tiny, values, jnp.zeros_like(values))


def _kth_largest(
  values: Float[Array, "rows width"], k: Int[Array, " groups"]
) -> Float[Array, " groups"]:
  """The largest number that at least k of the values reach.

  Args:
    values: Positive or zero.
    k: One number a row, or a single one for all rows together.

  Returns:
    One number a row, or a single one; zero if fewer than k are positive.
  """

  def decide(step: int | jax.Array, found: Array) -> Array:
    candidate = found | (1 << (_TOP_BIT - step))
    count = _count(values >= _as_float(candidate)[:, None])
    if k.shape[0] == 1:
      count = count.sum(keepdims=True)
    return jnp.where(count >= k, candidate, found)

  found = jnp.zeros(k.shape, jnp.int32)
  return _as_float(_repeat(_TOP_BIT + 1, decide, found, values.size))


def _repeat(
  times: int, body: Callable[[Any, Array], Array], start: Array, size: int
) -> Array:
  """`body(step, value)` for every step.

  Large work is written out, for XLA runs the body of a loop on one CPU core;
  small work is not, for that compiles many times faster.
  """
  if size < _LARGE:
    return jax.lax.fori_loop(0, times, body, start)
  value = start
  for step in range(times):
    value = body(step, value)
  return value


def _as_float(bits: Int[Array, " groups"]) -> Float[Array, " groups"]:
  return jax.lax.bitcast_convert_type(bits, jnp.float32)


def _count(chosen: Bool[Array, "rows width"]) -> Int[Array, " rows"]:
  """How many entries of each row are True."""
  return jax.lax.platform_dependent(
    chosen,
    cpu=_count_by_bytes,
    default=lambda marks: marks.sum(axis=1, dtype=jnp.int32),
  )


def _count_by_bytes(chosen: Bool[Array, "rows width"]) -> Int[Array, " rows"]:
  """The same, several times as fast on a CPU: adds four bytes in one word.

  XLA vectorises a comparison and a sum, but not the two fused.
  """
  rows, width = chosen.shape
  if width % 4:
    return chosen.sum(axis=1, dtype=jnp.int32)
  marks = jax.lax.optimization_barrier(chosen.astype(jnp.uint8))
  marks = marks.reshape(rows, -1, 4)
  words = jax.lax.bitcast_convert_type(marks, jnp.uint32)
  together = math.gcd(width // 4, _MOST_IN_A_BYTE)
  words = words.reshape(rows, -1, together).sum(axis=2, dtype=jnp.uint32)
  counts = sum((words >> shift) & 255 for shift in (0, 8, 16, 24))
  return jnp.asarray(counts).sum(axis=1, dtype=jnp.uint32).astype(jnp.int32)


def _first(
  chosen: Bool[Array, "rows width"], most: Int[Array, " rows"]
) -> Bool[Array, "rows width"]:
  """The first `most` True entries of each row.

  Finds, bit by bit, the widest beginning of the row that holds at most `most`.
  """
  width = chosen.shape[1]
  index = jnp.arange(width, dtype=jnp.int32)[None, :]
  bits = width.bit_length()

  def widen(step: int | jax.Array, end: Array) -> Array:
    candidate = end + (1 << (bits - 1 - step))
    fits = _count(chosen & (index < candidate[:, None])) <= most
    return jnp.where(fits, candidate, end)

  end = _repeat(bits, widen, jnp.zeros_like(most), chosen.size)
  return chosen & (index < end[:, None])
