"""Decoding with decoders that stay in their files.

The decoders of a wide cross-layer transcoder take tens of gigabytes; a prompt
touches a few thousand rows of them. Only the rows of active latents are read,
one source layer at a time. This runs outside `jax.jit`: inside it everything
would be loaded.
"""

import jax
from jax.core import Tracer
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np
from penzai import pz

from gemma_scope import axes
from gemma_scope.dictionaries.vectors import product
from gemma_scope.errors import ConfigError


def write_from_files(
  decoders: list[pz.nx.NamedArray],
  biases: list[pz.nx.NamedArray],
  latents: list[Float[Array, "... latents"]],
) -> list[Float[Array, "... d"]]:
  """What latents of all layers write to every site, biases included.

  Args:
    decoders: {latents, layer, output} of each source; `layer` ends at the last
      site.
    biases: {output} of each site.
    latents: Of each source, concrete.

  Raises:
    ConfigError: Called inside `jax.jit`.
  """
  if any(isinstance(f, Tracer) for f in latents):
    raise ConfigError(
      "A dictionary whose arrays are still in their files cannot be decoded "
      "inside a compiled function.",
      received="latents of a trace",
      instead="gs.dictionaries.place(dictionary) first, or decode outside of "
      "jax.jit",
    )
  lead = latents[0].shape[:-1]
  rebuilt = [
    np.broadcast_to(
      b := np.asarray(bias.data_array, np.float32), (*lead, *b.shape)
    )
    for bias in biases
  ]
  for w, f in zip(decoders, latents):
    written = _written(w, np.asarray(f).reshape(-1, f.shape[-1]))
    first = len(decoders) - written.shape[1]
    for slot in range(written.shape[1]):
      y = written[:, slot].reshape(*lead, -1)
      rebuilt[first + slot] = rebuilt[first + slot] + y
  return [jnp.asarray(y) for y in rebuilt]


def _written(w_dec: pz.nx.NamedArray, latents: np.ndarray) -> np.ndarray:
  """[rows, layer, output] from the rows of the decoder that are active."""
  matrix = w_dec.data_array
  assert tuple(w_dec.named_axes) == (axes.LATENTS, axes.LAYER, axes.OUTPUT)
  used = np.flatnonzero((latents != 0).any(axis=0))
  # Padded to a power of two, so that few programs are compiled.
  room = 1 << max(len(used) - 1, 1).bit_length()
  values = np.zeros((len(latents), room), np.float32)
  values[:, : len(used)] = latents[:, used]
  rows = np.zeros((room, *matrix.shape[1:]), np.float32)
  rows[: len(used)] = matrix[used]
  flat = _product(values, rows.reshape(room, -1))
  return np.asarray(flat).reshape(len(latents), *matrix.shape[1:])


_product = jax.jit(product)
