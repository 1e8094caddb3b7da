"""Transcoders: they rebuild what a layer makes of the site they read.

    y = activation(x @ w_enc, b_enc) @ w_dec + b_dec (+ x @ skip)

Sources: Dunefsky et al. 2024, "Transcoders Find Interpretable LLM Feature
Circuits"; Paulo et al. 2025, "Transcoders Beat Sparse Autoencoders for
Interpretability" (the affine skip).
"""

import dataclasses

from penzai import pz

from gemma_scope.dictionaries.activations import Activation
from gemma_scope.dictionaries.maps import linear
from gemma_scope.dictionaries.protocol import About, Values
from gemma_scope.dictionaries.single_layer import SingleLayer
from gemma_scope.dictionaries.vectors import pack, unpack, vector_axes
from gemma_scope.sites import Site


@pz.pytree_dataclass
class Transcoder(SingleLayer):
  """A transcoder; its other arrays are those of `SingleLayer`.

  Attributes:
    skip: {input, output}, applied as x @ skip; None for none.
  """

  w_enc: pz.nx.NamedArray
  b_enc: pz.nx.NamedArray
  w_dec: pz.nx.NamedArray
  b_dec: pz.nx.NamedArray
  activation: Activation
  b_in: pz.nx.NamedArray | None
  about: About = dataclasses.field(metadata={"pytree_node": False})
  skip: pz.nx.NamedArray | None = None

  @property
  def site(self) -> Site:
    """The site that it rebuilds, where it is spliced in."""
    return self.about.sites_out[0]

  def rebuild(self, latents: Values, x: Values, /) -> Values:
    """`decode(latents)` plus x @ skip.

    Args:
      latents: [..., latents], or named with an axis `latents`.
      x: The vectors that were encoded.
    """
    decoded = super().rebuild(latents, x)
    if self.skip is None:
      return decoded
    vector = vector_axes(self.sites_in[0])
    plain, shape = unpack(x, vector, self.width_in, self._what(0))
    beside = linear(self.skip, plain)
    return decoded + pack(beside, shape, vector_axes(self.sites_out[0]))
