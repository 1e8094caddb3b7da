"""Which values are the k largest, without sorting, exactly.

The bits of a positive float32, read as a whole number, are in the order of the
values, so the k-th largest is found by deciding its bits from the top: each
pass counts the values that reach a candidate. Counts are whole numbers, so the
answer is the same however the latents are sharded (a pass then costs one
all-reduce of counts), and the cost depends neither on k nor on `vmap`, which
turns `jax.lax.top_k` into a full sort on a CPU. Of equal values the ones with
the lowest index are kept, as by `jax.lax.top_k`. Values below the smallest
normal float32 count as zero.

On a CPU a pass over many values reads one byte of each: what is left to decide
of the next six or seven bits, four values in a word, counted four at a time.
"""

from collections.abc import Callable
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

_BITS = 31  # of a float32, without its sign
_DIGITS = (7, 6, 6, 6, 6)  # they fit into seven bits of a byte
_MOST_IN_A_BYTE = 128
_LARGE = 1 << 20

Groups = Float[Array, "groups rows width"]
Chosen = Bool[Array, "groups rows width"]


def top_k_mask(
  values: Float[Array, "rows width"], k: int | Int[Array, ""]
) -> Bool[Array, "rows width"]:
  """True at the k largest positive values of each row.

  A row with fewer than k positive values keeps those.

  Args:
    values: float32.
    k: How many to keep.
  """
  each = jnp.full((values.shape[0],), k, jnp.int32)
  return _mask(_positive(values)[:, None, :], each)[:, 0]


def batch_top_k_mask(
  values: Float[Array, "rows width"], total: int | Int[Array, ""]
) -> Bool[Array, "rows width"]:
  """True at the `total` largest positive values of all rows together.

  Of equal values those of the first rows are kept.

  Args:
    values: float32.
    total: How many to keep in the whole batch.
  """
  return _mask(_positive(values)[None], jnp.full((1,), total, jnp.int32))[0]


@jax.custom_batching.custom_vmap
def _mask(values: Groups, total: Int[Array, " groups"]) -> Chosen:
  """True at the `total` largest positive values of each group of rows."""
  least = _kth_largest(values, total)[:, None, None]
  reaching = (values >= least) & (values > 0)

  def without_some_ties() -> Chosen:
    above = values > least
    ties = reaching & ~above
    waiting = _count(ties)
    left = (total - _count(above).sum(axis=1))[:, None]
    left = left - (jnp.cumsum(waiting, axis=1) - waiting)
    return above | _first(ties, jnp.clip(left, 0, waiting))

  crowded = (_count(reaching).sum(axis=1) > total).any()
  # Real activations hardly ever tie: the search for an order is rare.
  return jax.lax.cond(crowded, without_some_ties, lambda: reaching)


@_mask.def_vmap
def _(size: int, batched: Any, values: Array, total: Array) -> Any:
  """More groups: left to itself, `vmap` would always search for an order."""
  if not batched[0]:
    values = jnp.broadcast_to(values[None], (size, *values.shape))
  if not batched[1]:
    total = jnp.broadcast_to(total[None], (size, *total.shape))
  together = values.reshape(-1, *values.shape[2:])
  return _mask(together, total.reshape(-1)).reshape(values.shape), True


def _positive(
  values: Float[Array, "rows width"],
) -> Float[Array, "rows width"]:
  """The normal positive values, 0 in the place of all others."""
  values = jax.lax.stop_gradient(values)
  tiny = jnp.finfo(jnp.float32).tiny
  return jnp.where(values >= tiny, values, jnp.zeros_like(values))


def _kth_largest(
  values: Groups, k: Int[Array, " groups"]
) -> Float[Array, " groups"]:
  """The largest number that at least k of a group's values reach.

  Args:
    values: Positive or zero.
    k: For each group.

  Returns:
    One number a group; zero if fewer than k are positive.
  """
  if values.size < _LARGE or values.shape[2] % 4:
    return _bit_by_bit(values, k)
  return jax.lax.platform_dependent(
    values, k, cpu=_digit_by_digit, default=_bit_by_bit
  )


def _bit_by_bit(values: Groups, k: Array) -> Array:
  def decide(step: int | jax.Array, found: Array) -> Array:
    candidate = found | (1 << (_BITS - 1 - step))
    reach = values >= _as_float(candidate)[:, None, None]
    return jnp.where(_count(reach).sum(axis=1) >= k, candidate, found)

  found = jnp.zeros(k.shape, jnp.int32)
  return _as_float(_repeat(_BITS, decide, found, values.size))


def _digit_by_digit(values: Groups, k: Array) -> Array:
  """The same, with few passes over whole numbers."""
  bits = jax.lax.bitcast_convert_type(values, jnp.int32)
  found = jnp.zeros(k.shape, jnp.int32)
  left = _BITS
  for digit in _DIGITS:
    left -= digit
    base = found << digit
    # Above the digit's range whatever is larger anyway, below it the smaller.
    rest = jnp.clip((bits >> left) - base[:, None, None], 0, 127)
    bytes_ = rest.astype(jnp.uint8).reshape(*values.shape[:2], -1, 4)
    words = jax.lax.bitcast_convert_type(bytes_, jnp.uint32)
    found = base | _largest_digit(jax.lax.optimization_barrier(words), digit, k)
  return _as_float(found)


def _largest_digit(
  words: Int[Array, "groups rows words"], bits: int, k: Array
) -> Int[Array, " groups"]:
  """The largest digit that at least k bytes of a group's words reach."""
  digit = jnp.zeros(k.shape, jnp.int32)
  for bit in reversed(range(bits)):
    candidate = digit | (1 << bit)
    count = _reaching(words, candidate).sum(axis=1)
    digit = jnp.where(count >= k, candidate, digit)
  return digit


def _reaching(
  words: Int[Array, "groups rows words"], least: Int[Array, " groups"]
) -> Int[Array, "groups rows"]:
  """How many bytes of each row's words, all below 128, are at least `least`."""
  groups, rows, width = words.shape
  together = math.gcd(width, _MOST_IN_A_BYTE)
  split = words.reshape(groups, rows, together, -1)
  four = (least.astype(jnp.uint32) * 0x01010101)[:, None, None, None]
  # Each byte's top bit survives the subtraction if the byte is large enough.
  tops = jnp.uint32(0x80808080)
  hits = (((split | tops) - four) >> 7) & 0x01010101
  return _bytes_of(hits.sum(axis=2, dtype=jnp.uint32))


def _bytes_of(words: Array) -> Array:
  """Sums of all bytes along the last axis."""
  words = jax.lax.optimization_barrier(words)
  counts = sum((words >> shift) & 255 for shift in (0, 8, 16, 24))
  return jnp.asarray(counts).sum(axis=-1, dtype=jnp.uint32).astype(jnp.int32)


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


def _count(chosen: Chosen) -> Int[Array, "groups rows"]:
  """How many entries of each row are True."""
  return jax.lax.platform_dependent(
    chosen,
    cpu=_count_by_bytes,
    default=lambda marks: marks.sum(axis=2, dtype=jnp.int32),
  )


def _count_by_bytes(chosen: Chosen) -> Int[Array, "groups rows"]:
  """The same, several times as fast on a CPU: adds four bytes in one word.

  XLA vectorises a comparison and a sum, but not the two fused.
  """
  groups, rows, width = chosen.shape
  if width % 4:
    return chosen.sum(axis=2, dtype=jnp.int32)
  marks = jax.lax.optimization_barrier(chosen.astype(jnp.uint8))
  words = jax.lax.bitcast_convert_type(
    marks.reshape(groups, rows, -1, 4), jnp.uint32
  )
  together = math.gcd(width // 4, _MOST_IN_A_BYTE)
  words = words.reshape(groups, rows, -1, together)
  return _bytes_of(words.sum(axis=3, dtype=jnp.uint32))


def _first(chosen: Chosen, most: Int[Array, "groups rows"]) -> Chosen:
  """The first `most` True entries of each row.

  Finds, bit by bit, the widest beginning of the row that holds at most `most`.
  """
  width = chosen.shape[2]
  index = jnp.arange(width, dtype=jnp.int32)[None, None, :]
  bits = width.bit_length()

  def widen(step: int | jax.Array, end: Array) -> Array:
    candidate = end + (1 << (bits - 1 - step))
    fits = _count(chosen & (index < candidate[:, :, None])) <= most
    return jnp.where(fits, candidate, end)

  end = _repeat(bits, widen, jnp.zeros_like(most), chosen.size)
  return chosen & (index < end[:, :, None])
