"""The two maps of every dictionary, on plain vectors and in float32.

    encode(x)  = activation((x - b_in) @ w_enc, b_enc)
    decode(f)  = f @ w_dec + b_dec

They take named arrays and no description, so that dictionaries of equal shape
are compiled once.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from penzai import pz

from gemma_scope import axes
from gemma_scope.dictionaries.activations import Activation
from gemma_scope.dictionaries.vectors import by_rows, product

# w_enc, b_enc, b_in, activation
Encoder = tuple[
  pz.nx.NamedArray, pz.nx.NamedArray, pz.nx.NamedArray | None, Activation
]


@jax.jit
def encode(
  encoder: Encoder, x: Float[Array, "... d"]
) -> Float[Array, "... latents"]:
  """Latents of vectors.

  Args:
    encoder: w_enc {input, latents}, b_enc {latents}, b_in {input} or None, and
      the activation.
    x: The vectors.
  """
  w_enc, b_enc, _, activation = encoder

  def rows(x: Float[Array, "rows d"]) -> Float[Array, "rows latents"]:
    x = without_bias(encoder, x)
    products = product(x, w_enc.unwrap(axes.INPUT, axes.LATENTS))
    return activation(products, plain(b_enc, axes.LATENTS))

  return by_rows(rows, x)


@jax.jit
def decode(
  w_dec: pz.nx.NamedArray,
  b_dec: pz.nx.NamedArray,
  latents: Float[Array, "... latents"],
) -> Float[Array, "... d"]:
  """Vectors from latents.

  Args:
    w_dec: {latents, output}.
    b_dec: {output}.
    latents: The latents.
  """

  def rows(f: Float[Array, "rows latents"]) -> Float[Array, "rows d"]:
    y = product(f, w_dec.unwrap(axes.LATENTS, axes.OUTPUT))
    return y + plain(b_dec, axes.OUTPUT)[None, :]

  return by_rows(rows, latents)


@jax.jit
def linear(
  weights: pz.nx.NamedArray, x: Float[Array, "... d"]
) -> Float[Array, "... e"]:
  """An affine skip: x @ weights {input, output}."""
  matrix = weights.unwrap(axes.INPUT, axes.OUTPUT)
  return by_rows(lambda rows: product(rows, matrix), x)


def without_bias(
  encoder: Encoder, x: Float[Array, "rows d"]
) -> Float[Array, "rows d"]:
  """`x` in float32, less the bias that is taken off before encoding."""
  x = x.astype(jnp.float32)
  b_in = encoder[2]
  return x if b_in is None else x - plain(b_in, axes.INPUT)[None, :]


def plain(array: pz.nx.NamedArray, *names: str) -> Float[Array, "..."]:
  """A named array as a positional one in float32."""
  return array.unwrap(*names).astype(jnp.float32)
