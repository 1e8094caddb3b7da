"""Dictionaries that read one site and rebuild one.

    f = activation((x - b_in) @ w_enc, b_enc)
    y = f @ w_dec + b_dec  (+ x @ skip)

`Sae` (it rebuilds what it reads) and `Transcoder` (it rebuilds what a layer
makes of it) are this without and with the skip, which reads x itself, without
`b_in` taken off.
"""

import dataclasses
from typing import Self

from penzai import pz

from gemma_scope import axes
from gemma_scope.dictionaries import maps
from gemma_scope.dictionaries.activations import Activation
from gemma_scope.dictionaries.protocol import About, LatentAddress, Values
from gemma_scope.dictionaries.vectors import (
  pack,
  unpack,
  vector_axes,
)
from gemma_scope.sites import Site


@pz.pytree_dataclass
class SingleLayer(pz.Struct):
  """One site in, one site out.

  Attributes:
    w_enc: {input, latents}.
    b_enc: {latents}.
    w_dec: {latents, output}.
    b_dec: {output}.
    activation: From products to latents.
    b_in: {input}, taken off before encoding; None for none.
    about: Kind, sites and origin.
  """

  w_enc: pz.nx.NamedArray
  b_enc: pz.nx.NamedArray
  w_dec: pz.nx.NamedArray
  b_dec: pz.nx.NamedArray
  activation: Activation
  b_in: pz.nx.NamedArray | None
  about: About = dataclasses.field(metadata={"pytree_node": False})

  @property
  def sites_in(self) -> tuple[Site, ...]:
    """The one site it reads."""
    return self.about.sites_in

  @property
  def sites_out(self) -> tuple[Site, ...]:
    """The one site it rebuilds."""
    return self.about.sites_out

  @property
  def latents(self) -> LatentAddress:
    """The address of its latents; `latents[5698]` is that of one."""
    return LatentAddress(self.sites_in[0], None, self.about.name)

  @property
  def num_latents(self) -> int:
    """Number of latents."""
    return self.w_enc.named_shape[axes.LATENTS]

  @property
  def width_in(self) -> int:
    """How many numbers a vector at the site it reads has."""
    return self.w_enc.named_shape[axes.INPUT]

  @property
  def width_out(self) -> int:
    """How many numbers a vector at the site it rebuilds has."""
    return self.w_dec.named_shape[axes.OUTPUT]

  @property
  def encoder(self) -> maps.Encoder:
    """What encodes, without the rest."""
    return self.w_enc, self.b_enc, self.b_in, self.activation

  def encode(self, x: Values, /) -> Values:
    """Latents, float32.

    Args:
      x: Vectors at `sites_in[0]`: [..., d], or named with its axes.

    Raises:
      SiteError: These are no such vectors.
    """
    vector = vector_axes(self.sites_in[0])
    plain, shape = unpack(x, vector, self.width_in, self._what(0))
    return pack(maps.encode(self.encoder, plain), shape, (axes.LATENTS,))

  def decode(self, latents: Values, /) -> Values:
    """What latents say of the vectors at `sites_out[0]`, bias included.

    Args:
      latents: [..., latents], or named with an axis `latents`.

    Raises:
      SiteError: These are not its latents.
    """
    return self._decoded(latents, self.about.heads)

  def rebuild(self, latents: Values, x: Values, /) -> Values:
    """`decode(latents)`, and what passes beside the latents.

    Args:
      latents: [..., latents], or named with an axis `latents`.
      x: The vectors that were encoded.
    """
    vector = vector_axes(self.sites_in[0])
    _, shape = unpack(x, vector, self.width_in, self._what(0))
    return self._decoded(latents, self.about.heads or shape.heads)

  def __call__(self, x: Values, /) -> Values:
    """The reconstruction of the vectors at `sites_out[0]` from `x`."""
    return self.rebuild(self.encode(x), x)

  def with_about(self, about: About) -> Self:
    """The same dictionary with another description."""
    return dataclasses.replace(self, about=about)

  def _decoded(self, latents: Values, heads: int | None) -> Values:
    plain, shape = unpack(
      latents, (axes.LATENTS,), self.num_latents, "its latents"
    )
    shape = dataclasses.replace(shape, heads=heads)
    vector = vector_axes(self.sites_out[0])
    return pack(maps.decode(self.w_dec, self.b_dec, plain), shape, vector)

  def _what(self, index: int) -> str:
    return f"vectors at {self.sites_in[index]}"
