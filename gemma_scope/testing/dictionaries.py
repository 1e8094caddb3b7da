"""Random dictionaries of every kind, small, for tests.

Their scales are such that about a tenth of the latents is active on standard
normal vectors. Arrays are JAX float32.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from penzai import pz

from gemma_scope import axes
from gemma_scope.dictionaries.activations import (
  Activation,
  BatchTopK,
  Gated,
  JumpRelu,
  Relu,
  TopK,
)
from gemma_scope.dictionaries.cross_layer import CrossLayer, LayerPart
from gemma_scope.dictionaries.crosscoder import Crosscoder
from gemma_scope.dictionaries.protocol import About
from gemma_scope.dictionaries.sae import Sae
from gemma_scope.dictionaries.transcoder import Transcoder
from gemma_scope.sites import Site


@dataclasses.dataclass
class Source:
  """Draws named arrays one after the other.

  Attributes:
    seed: Of the generator.
  """

  seed: int = 0

  def __post_init__(self) -> None:
    self.rng = np.random.default_rng(self.seed)

  def normal(self, scale: float, sizes: dict[str, int]) -> pz.nx.NamedArray:
    """A named array of normal numbers; sizes by axis name."""
    data = scale * self.rng.standard_normal(tuple(sizes.values()))
    return pz.nx.wrap(jnp.asarray(data, jnp.float32), *sizes)

  def positive(self, scale: float, sizes: dict[str, int]) -> pz.nx.NamedArray:
    """A named array of numbers between 0.5 and 1.5 times `scale`."""
    data = scale * self.rng.uniform(0.5, 1.5, tuple(sizes.values()))
    return pz.nx.wrap(jnp.asarray(data, jnp.float32), *sizes)


def random_activation(name: str, latents: int, source: Source) -> Activation:
  """One of the five, by its name in `ACTIVATIONS`."""
  if name == "gated":
    return Gated(
      source.normal(0.2, {axes.LATENTS: latents}),
      source.normal(0.2, {axes.LATENTS: latents}),
    )
  if name == "jump_relu":
    return JumpRelu(source.positive(1.0, {axes.LATENTS: latents}))
  return {"relu": Relu(), "top_k": TopK(6), "batch_top_k": BatchTopK(6)}[name]


def random_sae(
  activation: str = "jump_relu",
  *,
  d: int = 32,
  latents: int = 64,
  site: str = "resid_post",
  layer: int = 3,
  seed: int = 0,
) -> Sae:
  """An SAE; of z with four heads."""
  address = Site(site, layer)
  about = About("sae", (address,), (address,), heads=4 if site == "z" else None)
  source = Source(seed)
  arrays = _arrays(source, d, d, latents, activation)
  b_in = source.normal(0.1, {axes.INPUT: d})
  w_enc, b_enc, w_dec, b_dec, act = arrays
  return Sae(w_enc, b_enc, w_dec, b_dec, act, b_in, about)


def random_transcoder(
  activation: str = "jump_relu",
  *,
  affine: bool = False,
  d: int = 32,
  latents: int = 64,
  layer: int = 3,
  seed: int = 0,
) -> Transcoder:
  """A transcoder from mlp_in to mlp_write."""
  sites = (Site("mlp_in", layer),), (Site("mlp_write", layer),)
  source = Source(seed)
  arrays = _arrays(source, d, d, latents, activation)
  skip = source.normal(d**-0.5, {axes.INPUT: d, axes.OUTPUT: d})
  about = About("transcoder", *sites)
  w_enc, b_enc, w_dec, b_dec, act = arrays
  skip = skip if affine else None
  return Transcoder(w_enc, b_enc, w_dec, b_dec, act, None, about, skip)


def random_crosscoder(
  activation: str = "jump_relu",
  *,
  count: int = 3,
  d: int = 32,
  latents: int = 64,
  seed: int = 0,
) -> Crosscoder:
  """An acausal crosscoder of every second resid_post from layer 1."""
  sites = tuple(Site("resid_post", 2 * i + 1) for i in range(count))
  source = Source(seed)
  drawn = [_arrays(source, d, d, latents, activation) for _ in range(count)]
  return Crosscoder(
    w_enc=tuple(a[0] for a in drawn),
    b_enc=drawn[0][1],
    w_dec=tuple(a[2] for a in drawn),
    b_dec=tuple(a[3] for a in drawn),
    activation=drawn[0][4],
    b_in=None,
    about=About("crosscoder", sites, sites),
  )


def random_cross_layer(
  activation: str = "jump_relu",
  *,
  kind: str = "clt",
  affine: bool = False,
  causal: bool = True,
  count: int = 3,
  d: int = 32,
  latents: int = 64,
  seed: int = 0,
) -> CrossLayer:
  """A CLT of the first layers, or a crosscoder of every second layer."""
  source = Source(seed)
  parts = []
  for i in range(count):
    w_enc, b_enc, _, b_dec, act = _arrays(source, d, d, latents, activation)
    slots = count - i if causal else count
    shape = {axes.LATENTS: latents, axes.LAYER: slots, axes.OUTPUT: d}
    w_dec = source.normal(latents**-0.5, shape)
    skip = source.normal(d**-0.5, {axes.INPUT: d, axes.OUTPUT: d})
    parts.append(
      LayerPart(w_enc, b_enc, w_dec, b_dec, act, None, skip if affine else None)
    )
  if kind == "clt":
    sites_in = tuple(Site("mlp_in", i) for i in range(count))
    sites_out = tuple(Site("mlp_write", i) for i in range(count))
  else:
    sites_in = tuple(Site("resid_post", 2 * i + 1) for i in range(count))
    sites_out = sites_in
  return CrossLayer(tuple(parts), About(kind, sites_in, sites_out), causal)


def random_vectors(dictionary: object, *lead: int, seed: int = 1) -> jax.Array:
  """Standard normal vectors [*lead, d] ([layer, *lead, d]) for a dictionary."""
  count = len(dictionary.sites_in)  # type: ignore[attr-defined]
  d = dictionary.width_in  # type: ignore[attr-defined]
  shape = (*lead, d) if count == 1 else (count, *lead, d)
  return jax.random.normal(jax.random.key(seed), shape)


def _arrays(
  source: Source, d_in: int, d_out: int, latents: int, name: str
) -> tuple[Any, ...]:
  """w_enc, b_enc, w_dec, b_dec and the activation of one layer."""
  return (
    source.normal(d_in**-0.5, {axes.INPUT: d_in, axes.LATENTS: latents}),
    source.normal(0.1, {axes.LATENTS: latents}),
    source.normal(latents**-0.5, {axes.LATENTS: latents, axes.OUTPUT: d_out}),
    source.normal(0.1, {axes.OUTPUT: d_out}),
    random_activation(name, latents, source),
  )
