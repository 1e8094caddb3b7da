"""Sparse autoencoders: they rebuild the site they read.

    y = activation((x - b_in) @ w_enc, b_enc) @ w_dec + b_dec

Sources: Bricken et al. 2023, "Towards Monosemanticity"; Huben et al. 2023,
"Sparse Autoencoders Find Highly Interpretable Features in Language Models".
"""

import dataclasses

from penzai import pz

from gemma_scope.dictionaries.activations import Activation
from gemma_scope.dictionaries.protocol import About
from gemma_scope.dictionaries.single_layer import SingleLayer
from gemma_scope.sites import Site


@pz.pytree_dataclass
class Sae(SingleLayer):
  """A sparse autoencoder; its arrays are those of `SingleLayer`."""

  w_enc: pz.nx.NamedArray
  b_enc: pz.nx.NamedArray
  w_dec: pz.nx.NamedArray
  b_dec: pz.nx.NamedArray
  activation: Activation
  b_in: pz.nx.NamedArray | None
  about: About = dataclasses.field(metadata={"pytree_node": False})

  @property
  def site(self) -> Site:
    """The site that it reads and rebuilds."""
    return self.about.sites_in[0]
