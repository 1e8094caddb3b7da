"""Decoding from the active latents alone: a gather of decoder rows.

    y = sum over active i of f_i * w_dec[i] + b_dec

A dense product reads every row of the decoder once and multiplies it with every
vector; a gather reads the active rows anew for every vector. The gather is
taken if `gathering_pays`; the results are equal but for the order of a sum.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
from penzai import pz

from gemma_scope import axes
from gemma_scope.dictionaries.maps import decode, plain
from gemma_scope.dictionaries.single_layer import SingleLayer

# Costs in units of multiplying one decoder row with one vector, as measured on
# two CPU cores with decoders of 640 x 16k and 640 x 262k: finding out whether a
# latent is active, bringing one active row to its vector, and reading one row
# from memory for a dense product of few vectors.
_LOOKING, _GATHERING, _READING = 0.28, 200, 30
_BLOCK = 256


@pz.pytree_dataclass
class Active(pz.Struct):
  """The active latents of each vector.

  Attributes:
    indices: [rows, most] which latents, in rising order.
    values: [rows, most] float32; 0 past a vector's last.
    count: [rows] how many are active; more than `most` did not fit.
  """

  indices: Int[Array, "rows most"]
  values: Float[Array, "rows most"]
  count: Int[Array, " rows"]


def active(latents: Float[Array, "rows latents"], most: int) -> Active:
  """Collects what is not zero, without a sort.

  Args:
    latents: As `encode` gives them, for rows of vectors.
    most: How many places to keep for each vector.
  """
  return _collect(latents.astype(jnp.float32), most)


def gathering_pays(rows: int, num_latents: int, most: int) -> bool:
  """Whether a gather is faster than the dense product.

  Args:
    rows: How many vectors are decoded together.
    num_latents: Rows of the decoder.
    most: How many are active in one vector at most.
  """
  sparse = rows * num_latents * _LOOKING + rows * most * _GATHERING
  return sparse < num_latents * max(rows, _READING)


def decode_active(
  dictionary: SingleLayer, found: Active
) -> Float[Array, "rows d"]:
  """Vectors from active latents, bias included.

  Latents that did not fit into `found` are left out.
  """
  return _gather(dictionary.w_dec, dictionary.b_dec, found)


def decode_sparsely(
  dictionary: SingleLayer, latents: Float[Array, "... latents"], most: int
) -> Float[Array, "... d"]:
  """The same as `dictionary.decode` on plain arrays, by the faster way.

  Args:
    dictionary: An SAE or transcoder.
    latents: Plain latents.
    most: Places for each vector; four times the expected L0 is plenty. Where
      a vector has more active latents, the dense product is taken, so that the
      result is right in any case.
  """
  rows = math.prod(latents.shape[:-1])
  if not gathering_pays(rows, dictionary.num_latents, most):
    return dictionary.decode(latents)
  flat = latents.reshape(rows, -1)
  y = _sparse_or_dense(dictionary.w_dec, dictionary.b_dec, flat, most)
  return y.reshape(*latents.shape[:-1], -1)


@jax.jit
def _gather(
  w_dec: pz.nx.NamedArray, b_dec: pz.nx.NamedArray, found: Active
) -> Float[Array, "rows d"]:
  matrix = w_dec.unwrap(axes.LATENTS, axes.OUTPUT)
  rows = matrix[found.indices].astype(jnp.float32)
  y = jnp.einsum("rk,rkd->rd", found.values, rows, precision="highest")
  return y + plain(b_dec, axes.OUTPUT)[None, :]


def _sparse_or_dense(w_dec, b_dec, latents, most):
  found = active(latents, most)
  return jax.lax.cond(
    (found.count <= most).all(),
    lambda: _gather(w_dec, b_dec, found),
    lambda: decode(w_dec, b_dec, latents),
  )


def _collect(latents: Float[Array, "rows latents"], most: int) -> Active:
  """The k-th active latent is in the block where the count passes k."""
  rows, width = latents.shape
  pad = -width % _BLOCK
  padded = jnp.pad(latents, ((0, 0), (0, pad))).reshape(rows, -1, _BLOCK)
  counts = (padded != 0).sum(axis=2, dtype=jnp.int32)
  ends = jnp.cumsum(counts, axis=1)
  wanted = jnp.arange(most, dtype=jnp.int32)
  find = jax.vmap(lambda e: jnp.searchsorted(e, wanted, side="right"))
  block = jnp.minimum(find(ends), ends.shape[1] - 1)
  ordinal = wanted[None, :] - jnp.take_along_axis(ends - counts, block, 1)
  inside = jax.vmap(lambda row, at: row[at])(padded != 0, block)
  place = _nth(inside, ordinal)
  count = ends[:, -1]
  there = wanted[None, :] < count[:, None]
  indices = jnp.where(there, block * _BLOCK + place, 0)
  values = jnp.take_along_axis(latents, indices, axis=1)
  return Active(indices, jnp.where(there, values, 0), count)


def _nth(
  marks: Bool[Array, "rows most block"], n: Int[Array, "rows most"]
) -> Int[Array, "rows most"]:
  """The place of the n-th True, counted from 0, in each block."""
  seen = jnp.cumsum(marks, axis=2, dtype=jnp.int32)
  return jnp.argmax((seen == n[:, :, None] + 1) & marks, axis=2)
