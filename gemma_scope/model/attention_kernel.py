"""Attention over positional arrays: the dense pattern, and query blocks.

    pattern = softmax(s^-1/2 q k^T + mask),   z = pattern v

Key j is visible to query i of the same sequence iff i - W < j <= i, and j <= i
on global layers. A padding token sees itself, so that no row is empty. The
query heads of one key/value head are folded into rows, so that a key is read
once. In query blocks, keys after the block and, on local layers, keys before
the window are never touched. Blocks are unrolled, but those of local layers in
long rows: they are all alike, and become rows of a larger batch, so that the
program of a local layer does not grow with the row.

Source: Vaswani et al. 2017, eq. 1; Ainslie et al. 2023 (grouped queries).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gemma_scope.model.linear import precision_of
from gemma_scope.model.placement import Places

MASKED = -1e30  # finite, so that a masked row has no NaN
NOWHERE = -(1 << 20)  # no token's segment or position
MAX_BLOCKS = 8  # query blocks are unrolled: bounds the compiled program
MIN_BLOCK = 256  # queries in a block; smaller ones waste matrix throughput


def visible(
  queries: Places, keys: Places, window: int | None
) -> Bool[Array, "batch seq kv_seq"]:
  """Which keys each query may look at."""
  distance = queries.positions[:, :, None] - keys.positions[:, None, :]
  same = queries.segment_ids[:, :, None] == keys.segment_ids[:, None, :]
  padding = (queries.segment_ids == 0)[:, :, None]
  near = distance >= 0
  if window is not None:
    near &= distance < window
  return same & jnp.where(padding, distance == 0, near)


@jax.named_scope("pattern")
def attention_pattern(
  query: Float[Array, "batch seq heads projection"],
  key: Float[Array, "batch kv_seq kv_heads projection"],
  mask: Bool[Array, "batch seq kv_seq"],
  scale: float,
) -> Float[Array, "batch heads seq kv_seq"]:
  """The softmax pattern, float32."""
  folded = fold_queries(query, key.shape[2])
  scores = jnp.einsum(
    "bkmh,bskh->bkms",
    folded * jnp.asarray(scale, folded.dtype),
    key,
    precision=precision_of(query.dtype),
    preferred_element_type=jnp.float32,
  )
  batch, seq, heads, _ = query.shape
  scores = scores.reshape(batch, heads, seq, key.shape[1])
  return jax.nn.softmax(jnp.where(mask[:, None], scores, MASKED), axis=-1)


@jax.named_scope("z")
def apply_pattern(
  pattern: Float[Array, "batch heads seq kv_seq"],
  value: Float[Array, "batch kv_seq kv_heads projection"],
) -> Float[Array, "batch seq heads projection"]:
  """Mixes the values by the pattern; accumulates in float32."""
  batch, heads, seq, kv_seq = pattern.shape
  kv_heads, width = value.shape[2:]
  mixed = jnp.einsum(
    "bkms,bskh->bkmh",
    pattern.astype(value.dtype).reshape(batch, kv_heads, -1, kv_seq),
    value,
    precision=precision_of(value.dtype),
    preferred_element_type=jnp.float32,
  )
  mixed = mixed.astype(value.dtype).reshape(batch, heads, seq, width)
  return mixed.transpose(0, 2, 1, 3)


def blocked_attention(
  query: Float[Array, "batch seq heads projection"],
  key: Float[Array, "batch seq kv_heads projection"],
  value: Float[Array, "batch seq kv_heads projection"],
  places: Places,
  scale: float,
  window: int | None,
) -> Float[Array, "batch seq heads projection"]:
  """Attention of a row to itself, without the full pattern."""
  seq = query.shape[1]
  if window is not None:
    half = max(MIN_BLOCK, -(-window // 2))
    if seq > MAX_BLOCKS * half:
      return _banded_attention(query, key, value, places, scale, window, half)
  size = max(MIN_BLOCK, -(-seq // MAX_BLOCKS))
  blocks = []
  for start in range(0, seq, size):
    stop = min(start + size, seq)
    first = 0 if window is None else max(0, start - window + 1)
    mask = visible(places.slice(start, stop), places.slice(first, stop), window)
    pattern = attention_pattern(
      query[:, start:stop], key[:, first:stop], mask, scale
    )
    blocks.append(apply_pattern(pattern, value[:, first:stop]))
  return blocks[0] if len(blocks) == 1 else jnp.concatenate(blocks, axis=1)


def _banded_attention(
  query: Float[Array, "batch seq heads projection"],
  key: Float[Array, "batch seq kv_heads projection"],
  value: Float[Array, "batch seq kv_heads projection"],
  places: Places,
  scale: float,
  window: int,
  size: int,
) -> Float[Array, "batch seq heads projection"]:
  """Attention in a window, all blocks at once.

  Each block of queries sees its own block of keys and as many before it as a
  window reaches into. What is put in front and behind for whole blocks is
  padding that no token sees.
  """
  batch, seq = query.shape[:2]
  before = -(-(window - 1) // size)
  blocks = -(-seq // size)
  behind = blocks * size - seq

  def own(array: Array) -> Array:
    filled = _fill(array, 0, behind)
    return filled.reshape(batch * blocks, size, *array.shape[2:])

  def seen(array: Array) -> Array:
    filled = _fill(array, before * size, behind)
    apart = filled.reshape(batch, before + blocks, size, *array.shape[2:])
    parts = [apart[:, i : i + blocks] for i in range(before + 1)]
    joined = jnp.concatenate(parts, axis=2)
    return joined.reshape(batch * blocks, -1, *array.shape[2:])

  mask = visible(jax.tree.map(own, places), jax.tree.map(seen, places), window)
  pattern = attention_pattern(own(query), seen(key), mask, scale)
  mixed = apply_pattern(pattern, seen(value))
  return mixed.reshape(batch, blocks * size, *mixed.shape[2:])[:, :seq]


def _fill(array: Array, front: int, behind: int) -> Array:
  """Columns in front and behind: zeros; places far away, where nobody looks."""
  ends = ((0, 0), (front, behind)) + ((0, 0),) * (array.ndim - 2)
  far = NOWHERE if array.ndim == 2 else 0
  return jnp.pad(array, ends, constant_values=far)


def fold_queries(
  query: Float[Array, "batch seq heads projection"], kv_heads: int
) -> Float[Array, "batch kv_heads rows projection"]:
  """Puts the query heads of each key/value head into its rows."""
  batch, seq, heads, width = query.shape
  turned = query.transpose(0, 2, 1, 3)
  return turned.reshape(batch, kv_heads, heads // kv_heads * seq, width)
