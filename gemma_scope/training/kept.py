"""TopK and BatchTopK in training, from the latents that are kept alone.

    z = x @ w_enc + b,   f = z where it is among the k largest,   y = f @ w_dec

    dw_dec = f^T @ dy                  dw_enc = x^T @ df, db = sum over rows of
    df = dy @ w_dec^T where f is kept  df, dx = df @ w_enc^T

Of a row's thousands of latents some tens are kept. Only z and df are dense
products; y, dw_dec and dw_enc multiply sparse matrices, in the form of
compressed rows (y) and compressed columns (gradients). The kept are listed
without a sort: 32 marks make a word, words are counted, and the n-th kept is
the n-th one in its word. Same values and gradients as the dense products, but
for the order of sums. For a CPU, where it saves half of a step and more; not
for prefixes, nor for latents that are sharded, nor under `vmap`.
"""

import functools
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gemma_scope.dictionaries.top_k import batch_top_k_mask, top_k_mask
from gemma_scope.training.products import matmul, turned

if TYPE_CHECKING:
  from gemma_scope.training.config import Group
  from gemma_scope.training.parameters import Layout

_LANES = 32  # marks in a word
_LEAST = 1 << 20  # values below which nothing is gained
_SHARE = 16  # kept latents are at most the width by this


class Kept(NamedTuple):
  """Places of a sparse matrix, as compressed rows.

  Attributes:
    rows: [kept] of each place.
    columns: [kept] of each place.
    ends: [rows + 1] where each row's places begin, and where the last end.
    there: [kept] False past the last place; the arrays' length is fixed.
  """

  rows: Int[Array, " kept"]
  columns: Int[Array, " kept"]
  ends: Int[Array, " rows"]
  there: Bool[Array, " kept"]


class Autoencoded(NamedTuple):
  """What the kept latents make of a batch.

  Attributes:
    y: What they write, without bias, [rows, d].
    per_row: How many are kept in each row, [rows] float32.
    frequency: Share of rows in which each latent is kept, [latents] float32.
    least: The smallest kept, infinite if none is.
  """

  y: Float[Array, "rows d"]
  per_row: Float[Array, " rows"]
  frequency: Float[Array, " latents"]
  least: Float[Array, ""]


def serves(setting: "tuple[Group, Layout, str]", rows: int) -> bool:
  """Whether a group's batches are of the form that this is for, and faster."""
  group, layout, precision = setting
  form = group.architecture
  plain = (
    form.activation in ("top_k", "batch_top_k")
    and group.sparsity.penalty == "none"
    and not (form.prefixes or layout.layered)
    and precision == "float32"
  )
  most = max(m.l0 for m in group.members)
  sparse_enough = most * _SHARE <= form.width and rows * form.width >= _LEAST
  whole = rows % _LANES == 0 and form.width % _LANES == 0
  return plain and sparse_enough and whole and jax.default_backend() == "cpu"


def autoencode(
  x: Float[Array, "rows read"],
  w_enc: Float[Array, "read latents"],
  bias: Float[Array, " latents"],
  w_dec: Float[Array, "latents d"],
  k: Int[Array, ""],
  most: int,
  of_batch: bool,
) -> Autoencoded:
  """Encodes, keeps the largest, decodes; gradients reach the first four.

  Args:
    x: Centred.
    w_enc: Encoder.
    bias: Of the encoder.
    w_dec: Decoder.
    k: How many a row.
    most: At least k.
    of_batch: BatchTopK; else TopK.
  """
  found = _autoencode(x, w_enc, bias, w_dec, k, most, of_batch)
  return cast(Autoencoded, found)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def _autoencode(
  x: Array,
  w_enc: Array,
  bias: Array,
  w_dec: Array,
  k: Array,
  most: int,
  of_batch: bool,
) -> Autoencoded:
  return _forward(x, w_enc, bias, w_dec, k, most, of_batch)[0]


def _forward(x, w_enc, bias, w_dec, k, most: int, of_batch: bool):
  z = matmul(x, w_enc, "float32") + bias[None, :]
  if of_batch:
    mask = batch_top_k_mask(z, k * z.shape[0])
  else:
    mask = top_k_mask(z, k)
  by_row, by_column = places(mask, most * z.shape[0])
  f = jnp.where(by_row.there, z[by_row.rows, by_row.columns], 0)
  y = _multiply(f, by_row.columns, by_row.ends, w_dec)
  made = Autoencoded(
    y,
    jnp.diff(by_row.ends).astype(jnp.float32),
    jnp.diff(by_column.ends).astype(jnp.float32) / z.shape[0],
    jnp.where(by_row.there, f, jnp.inf).min(),
  )
  own = z[by_column.rows, by_column.columns]
  f = jnp.where(by_column.there, own, 0)
  return made, (x, w_enc, w_dec, by_column, by_row, f)


def _backward(most: int, of_batch: bool, saved: Any, given: Autoencoded):
  del most, of_batch
  x, w_enc, w_dec, by_column, by_row, f = saved
  dense = matmul(given.y, turned(w_dec), "float32")

  def at(kept: Kept) -> Array:
    return jnp.where(kept.there, dense[kept.rows, kept.columns], 0)

  df = at(by_column)
  dw_dec = _multiply(f, by_column.rows, by_column.ends, given.y)
  dw_enc = _multiply(df, by_column.rows, by_column.ends, x).T
  db = jnp.zeros(w_enc.shape[1]).at[by_column.columns].add(df)
  dx = _multiply(at(by_row), by_row.columns, by_row.ends, w_enc.T)
  return dx, dw_enc, db, dw_dec, None


_autoencode.defvjp(_forward, _backward)


def places(mask: Bool[Array, "rows latents"], most: int) -> tuple[Kept, Kept]:
  """The places of a mask, row by row and column by column.

  Args:
    mask: Both sizes multiples of 32.
    most: How many there are at most.
  """
  rows, width = mask.shape
  across = mask.reshape(rows, _LANES, -1)
  words = _packed([across[:, i] for i in range(_LANES)])
  line, place, ends, there = _listed(words, most)
  by_row = Kept(line, place, ends, there)
  down = mask.reshape(_LANES, -1, width)
  words = _packed([down[i] for i in range(_LANES)]).T
  line, place, ends, there = _listed(words, most)
  return by_row, Kept(place, line, ends, there)


def _packed(marks: list[Array]) -> Array:
  """Mark i as bit i of each word."""
  bits = [jnp.where(m, jnp.uint32(1 << i), 0) for i, m in enumerate(marks)]
  return functools.reduce(jnp.bitwise_or, bits)


def _listed(
  words: Int[Array, "lines words"], most: int
) -> tuple[Array, Array, Array, Array]:
  """(line, place in it, where lines end, whether it is there) of every mark.

  Bit i of word w of a line is the line's place i * words + w.
  """
  lines, width = words.shape
  flat = words.reshape(-1)
  counts = jax.lax.population_count(flat).astype(jnp.int32)
  ends = jnp.cumsum(counts)
  number = jnp.arange(most, dtype=jnp.int32)
  index = jnp.arange(flat.size, dtype=jnp.int32)
  word = jnp.repeat(index, counts, total_repeat_length=most)
  bit = _nth_bit(flat[word], number - (ends - counts)[word])
  there = number < ends[-1]
  line = jnp.where(there, word // width, 0)
  place = jnp.where(there, word % width + bit * width, 0)
  line_ends = ends.reshape(lines, width)[:, -1]
  return (
    line,
    place,
    jnp.concatenate([jnp.zeros_like(ends[:1]), line_ends]),
    (there),
  )


def _nth_bit(words: Int[Array, " n"], n: Int[Array, " n"]) -> Int[Array, " n"]:
  """The place of the n-th one of each word, counted from 0, by halving."""
  at = jnp.zeros_like(n)
  for size in (16, 8, 4, 2, 1):
    low = (words >> at.astype(jnp.uint32)) & jnp.uint32((1 << size) - 1)
    ones = jax.lax.population_count(low).astype(jnp.int32)
    beyond = ones <= n
    n, at = jnp.where(beyond, n - ones, n), jnp.where(beyond, at + size, at)
  return at


def _multiply(
  values: Float[Array, " kept"],
  columns: Int[Array, " kept"],
  ends: Int[Array, " rows"],
  dense: Float[Array, "columns d"],
) -> Float[Array, "rows d"]:
  """A sparse matrix of compressed rows, times a dense one."""
  # Brings SciPy's sparse matrices along: a quarter of a second.
  from jax.experimental import sparse

  shape = (ends.shape[0] - 1, dense.shape[0])
  return sparse.BCSR((values, columns, ends), shape=shape) @ dense
