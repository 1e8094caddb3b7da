"""Crosscoders: one set of latents for several sites.

    f   = activation(sum over i of (x_i - b_in_i) @ w_enc_i, b_enc)
    y_j = f @ w_dec_j + b_dec_j

Source: Lindsey et al. 2024, "Sparse Crosscoders for Cross-Layer Features and
Model Diffing" (the acausal one). It reads every site before it can write the
first, so it needs a pass of its own to be spliced. Gemma Scope 2's crosscoders
are weakly causal: see `cross_layer`.
"""

import dataclasses
from typing import Self

import jax
from jaxtyping import Array, Float
from penzai import pz

from gemma_scope import axes
from gemma_scope.dictionaries import layers, maps
from gemma_scope.dictionaries.activations import Activation
from gemma_scope.dictionaries.protocol import About, LatentAddress, Values
from gemma_scope.dictionaries.vectors import pack, product, unpack, vector_axes
from gemma_scope.sites import Site


@pz.pytree_dataclass
class Crosscoder(pz.Struct):
  """Latents shared by several sites.

  Attributes:
    w_enc: {input, latents} of each site.
    b_enc: {latents}.
    w_dec: {latents, output} of each site.
    b_dec: {output} of each site.
    activation: From products to latents.
    b_in: {input} of each site, taken off before encoding; None for none.
    about: Kind, sites and origin.
  """

  w_enc: tuple[pz.nx.NamedArray, ...]
  b_enc: pz.nx.NamedArray
  w_dec: tuple[pz.nx.NamedArray, ...]
  b_dec: tuple[pz.nx.NamedArray, ...]
  activation: Activation
  b_in: tuple[pz.nx.NamedArray, ...] | None
  about: About = dataclasses.field(metadata={"pytree_node": False})

  @property
  def sites_in(self) -> tuple[Site, ...]:
    """The sites it reads."""
    return self.about.sites_in

  @property
  def sites_out(self) -> tuple[Site, ...]:
    """The sites it rebuilds."""
    return self.about.sites_out

  @property
  def latents(self) -> LatentAddress:
    """The address of its latents, at the last site they need."""
    return LatentAddress(self.sites_in[-1], None, self.about.name)

  @property
  def num_latents(self) -> int:
    """Number of latents."""
    return self.b_enc.named_shape[axes.LATENTS]

  @property
  def width_in(self) -> int:
    """How many numbers a vector at a site it reads has."""
    return self.w_enc[0].named_shape[axes.INPUT]

  @property
  def width_out(self) -> int:
    """How many numbers a vector at a site it rebuilds has."""
    return self.b_dec[0].named_shape[axes.OUTPUT]

  def encode(self, x: Values, /) -> Values:
    """The shared latents, [..., latents] float32.

    Args:
      x: Vectors at `sites_in`: [layer, ..., d], or named with `layer`.
    """
    each = layers.split(x, len(self.sites_in))
    taken = [
      unpack(v, vector_axes(site), self.width_in, f"vectors at {site}")
      for v, site in zip(each, self.sites_in)
    ]
    return pack(
      _encode(self, [v for v, _ in taken]), taken[0][1], (axes.LATENTS,)
    )

  def decode(self, latents: Values, /) -> Values:
    """What latents say of the vectors at `sites_out`, biases included.

    Args:
      latents: [..., latents], or named with an axis `latents`.
    """
    plain, shape = unpack(
      latents, (axes.LATENTS,), self.num_latents, "its latents"
    )
    shape = dataclasses.replace(shape, heads=self.about.heads)
    return layers.join(
      [
        pack(maps.decode(w, b, plain), shape, vector_axes(site))
        for w, b, site in zip(self.w_dec, self.b_dec, self.sites_out)
      ]
    )

  def rebuild(self, latents: Values, x: Values, /) -> Values:
    """`decode(latents)`: nothing passes beside the latents."""
    del x
    return self.decode(latents)

  def __call__(self, x: Values, /) -> Values:
    """The reconstruction of the vectors at `sites_out` from `x`."""
    return self.decode(self.encode(x))

  def with_about(self, about: About) -> Self:
    """The same dictionary with another description."""
    return dataclasses.replace(self, about=about)


def _encode(
  crosscoder: Crosscoder, xs: list[Float[Array, "... d"]]
) -> Float[Array, "... latents"]:
  biases = crosscoder.b_in or (None,) * len(xs)
  encoders = [
    (w, crosscoder.b_enc, b, crosscoder.activation)
    for w, b in zip(crosscoder.w_enc, biases)
  ]
  return _encode_together(encoders, xs)


@jax.jit
def _encode_together(
  encoders: list[maps.Encoder], xs: list[Float[Array, "... d"]]
) -> Float[Array, "... latents"]:
  """The activation of the sum of the sites' products."""
  products = []
  for encoder, x in zip(encoders, xs):
    rows = maps.without_bias(encoder, x.reshape(-1, x.shape[-1]))
    matrix = encoder[0].unwrap(axes.INPUT, axes.LATENTS)
    products.append(product(rows, matrix))
  _, b_enc, _, activation = encoders[0]
  f = activation(layers.add(products), maps.plain(b_enc, axes.LATENTS))
  return f.reshape(*xs[0].shape[:-1], f.shape[-1])
