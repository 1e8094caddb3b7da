"""Dictionaries each of whose layers has latents of its own: CLTs.

    f_i = activation_i((x_i - b_in_i) @ w_enc_i, b_enc_i)
    y_j = sum over i of f_i @ w_dec_i[:, j] + b_dec_j (+ x_j @ skip_j)

In a causal one i runs up to j. A cross-layer transcoder (CLT) reads every
`mlp_in` and rebuilds every `mlp_write`; a weakly causal crosscoder reads and
rebuilds the residual stream of some layers, each from itself and the earlier
ones. Sources: Ameisen et al. 2025, "Circuit Tracing"; Lindsey et al. 2024,
"Sparse Crosscoders for Cross-Layer Features and Model Diffing".
"""

from collections.abc import Sequence
import dataclasses
from typing import Self

import jax
from jaxtyping import Array, Float
from penzai import pz

from gemma_scope import axes
from gemma_scope.dictionaries import layers, maps
from gemma_scope.dictionaries.activations import Activation
from gemma_scope.dictionaries.arrays import cut, is_mapped
from gemma_scope.dictionaries.mapped import write_from_files
from gemma_scope.dictionaries.protocol import About, LatentAddress, Values
from gemma_scope.dictionaries.vectors import (
  Shape,
  by_rows,
  pack,
  product,
  unpack,
  vector_axes,
)
from gemma_scope.errors import SiteError
from gemma_scope.sites import Site


@pz.pytree_dataclass
class LayerPart(pz.Struct):
  """The latents of one layer.

  Attributes:
    w_enc: {input, latents}.
    b_enc: {latents}.
    w_dec: {latents, layer, output}; `layer` runs over the sites it writes to:
      its own and the later ones if the dictionary is causal, else all.
    b_dec: {output}, of its own site.
    activation: From products to latents.
    b_in: {input}, taken off before encoding; None for none.
    skip: {input, output}, from its site in to its site out; None for none.
  """

  w_enc: pz.nx.NamedArray
  b_enc: pz.nx.NamedArray
  w_dec: pz.nx.NamedArray
  b_dec: pz.nx.NamedArray
  activation: Activation
  b_in: pz.nx.NamedArray | None = None
  skip: pz.nx.NamedArray | None = None

  @property
  def encoder(self) -> maps.Encoder:
    """What encodes, without the rest."""
    return self.w_enc, self.b_enc, self.b_in, self.activation


@pz.pytree_dataclass
class CrossLayer(pz.Struct):
  """A CLT or a (weakly causal) crosscoder with latents in each layer.

  Attributes:
    parts: One for each site, in order.
    about: Kind, sites and origin.
    causal: Whether no part writes to the sites before its own.
  """

  parts: tuple[LayerPart, ...]
  about: About = dataclasses.field(metadata={"pytree_node": False})
  causal: bool = dataclasses.field(metadata={"pytree_node": False})

  @property
  def sites_in(self) -> tuple[Site, ...]:
    """The sites it reads."""
    return self.about.sites_in

  @property
  def sites_out(self) -> tuple[Site, ...]:
    """The sites it rebuilds."""
    return self.about.sites_out

  @property
  def latents(self) -> tuple[LatentAddress, ...]:
    """The address of the latents of each layer: `latents[3][17]` is one."""
    name = self.about.name
    return tuple(LatentAddress(site, None, name) for site in self.sites_in)

  @property
  def num_latents(self) -> int:
    """Number of latents of one layer."""
    return self.parts[0].w_enc.named_shape[axes.LATENTS]

  @property
  def width_in(self) -> int:
    """How many numbers a vector at a site it reads has."""
    return self.parts[0].w_enc.named_shape[axes.INPUT]

  @property
  def width_out(self) -> int:
    """How many numbers a vector at a site it rebuilds has."""
    return self.parts[0].b_dec.named_shape[axes.OUTPUT]

  def encode_at(self, position: int, x: Values, /) -> Values:
    """Latents of one layer, float32.

    Args:
      position: Index into `sites_in`.
      x: Vectors at that site: [..., d], or named with its axes.
    """
    plain, shape = self._vectors(position, x)
    return pack(
      maps.encode(self.parts[position].encoder, plain), shape, (axes.LATENTS,)
    )

  def rebuild_at(
    self, position: int, latents: Sequence[Values], x: Values, /
  ) -> Values:
    """The vectors at one of `sites_out`.

    Args:
      position: Index into `sites_out`.
      latents: Those of positions 0, 1, … in order: at least up to `position`
        if causal, else all.
      x: The vectors at `sites_in[position]`, for the affine skip and their
        shape.

    Raises:
      SiteError: Latents of a layer that writes here are missing.
    """
    needed = position + 1 if self.causal else len(self.parts)
    if len(latents) < needed:
      raise SiteError(
        "Latents of a layer that writes to this site are missing.",
        received=f"latents of {len(latents)} layers for position {position}",
        instead=f"latents of the first {needed} layers, in order",
      )
    plain, shape = self._vectors(position, x)
    given = [self._plain_latents(f)[0] for f in latents[:needed]]
    decoders = [
      cut(part.w_dec, axes.LAYER, self._slot(i, position))
      for i, part in enumerate(self.parts[:needed])
    ]
    part = self.parts[position]
    y = _write(decoders, part.b_dec, given)
    if part.skip is not None:
      y = y + maps.linear(part.skip, plain)
    return pack(y, shape, vector_axes(self.sites_out[position]))

  def encode(self, x: Values, /) -> Values:
    """Latents of every layer, [layer, ..., latents] float32.

    Args:
      x: Vectors at `sites_in`: [layer, ..., d], or named with `layer`.
    """
    each = layers.split(x, len(self.parts))
    return layers.join([self.encode_at(i, v) for i, v in enumerate(each)])

  def decode(self, latents: Values, /) -> Values:
    """What latents alone say of the vectors at `sites_out`, biases included.

    Args:
      latents: [layer, ..., latents], or named with `layer` and `latents`.
    """
    each = layers.split(latents, len(self.parts))
    taken = [self._plain_latents(f) for f in each]
    decoders = [part.w_dec for part in self.parts]
    biases = [part.b_dec for part in self.parts]
    write = write_from_files if is_mapped(decoders) else _write_all
    rebuilt = write(decoders, biases, [f for f, _ in taken])
    shape = dataclasses.replace(taken[0][1], heads=self.about.heads)
    return layers.join(
      [pack(y, shape, vector_axes(s)) for y, s in zip(rebuilt, self.sites_out)]
    )

  def rebuild(self, latents: Values, x: Values, /) -> Values:
    """`decode(latents)` plus each layer's own affine skip of `x`.

    Args:
      latents: [layer, ..., latents], or named with `layer` and `latents`.
      x: The vectors that were encoded.
    """
    decoded = layers.split(self.decode(latents), len(self.parts))
    each = layers.split(x, len(self.parts))
    for i, part in enumerate(self.parts):
      plain, shape = self._vectors(i, each[i])
      if part.skip is not None:
        vector = vector_axes(self.sites_out[i])
        beside = pack(maps.linear(part.skip, plain), shape, vector)
        decoded[i] = decoded[i] + beside
    return layers.join(decoded)

  def __call__(self, x: Values, /) -> Values:
    """The reconstruction of the vectors at `sites_out` from `x`."""
    return self.rebuild(self.encode(x), x)

  def with_about(self, about: About) -> Self:
    """The same dictionary with another description."""
    return dataclasses.replace(self, about=about)

  def _slot(self, source: int, target: int) -> int:
    """Which entry of a part's decoder writes to a site."""
    return target - source if self.causal else target

  def _vectors(self, position: int, x: Values) -> tuple[jax.Array, Shape]:
    site = self.sites_in[position]
    what = f"vectors at {site}"
    return unpack(x, vector_axes(site), self.width_in, what)

  def _plain_latents(self, latents: Values) -> tuple[jax.Array, Shape]:
    return unpack(latents, (axes.LATENTS,), self.num_latents, "its latents")


@jax.jit
def _write(
  decoders: list[pz.nx.NamedArray],
  bias: pz.nx.NamedArray,
  latents: list[Float[Array, "... latents"]],
) -> Float[Array, "... d"]:
  """What the latents of some layers write to one site, bias included."""
  parts = [
    by_rows(lambda f, w=w: product(f, w.unwrap(axes.LATENTS, axes.OUTPUT)), f)
    for f, w in zip(latents, decoders)
  ]
  y = layers.add(parts)
  b = maps.plain(bias, axes.OUTPUT)
  return y + b.reshape((1,) * (y.ndim - 1) + b.shape)


@jax.jit
def _write_all(
  decoders: list[pz.nx.NamedArray],
  biases: list[pz.nx.NamedArray],
  latents: list[Float[Array, "... latents"]],
) -> list[Float[Array, "... d"]]:
  """What all latents write to every site; one product for each source."""
  count = len(decoders)
  written: list[list[jax.Array]] = [[] for _ in range(count)]
  for w, f in zip(decoders, latents):
    matrix = w.unwrap(axes.LATENTS, axes.LAYER, axes.OUTPUT)
    flat = matrix.reshape(matrix.shape[0], -1)
    y = by_rows(lambda rows, flat=flat: product(rows, flat), f)
    y = y.reshape(*f.shape[:-1], *matrix.shape[1:])
    first = count - matrix.shape[1]
    for slot in range(matrix.shape[1]):
      written[first + slot].append(y[..., slot, :])
  rebuilt = []
  for parts, bias in zip(written, biases):
    y, b = layers.add(parts), maps.plain(bias, axes.OUTPUT)
    rebuilt.append(y + b.reshape((1,) * (y.ndim - 1) + b.shape))
  return rebuilt
