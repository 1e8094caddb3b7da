"""Dictionaries that were not trained: what training is to be better than.

    PCA       y = m + sum over the k first components of v v^T (x - m)
    PCA top k the k components with the largest |v^T (x - m)|, token by token
    random    unit rows w: y = m + g * sum over the k largest w^T (x - m) of w

They are SAEs like any other: a component is a pair of latents, one for each
sign, of which one is active. The gain g is the one with the least squared error
on some rows: directions of an overcomplete dictionary overlap, so that without
it the sum would be too long.
"""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np
from penzai import pz

from gemma_scope import axes
from gemma_scope.dictionaries.activations import Activation, Relu, TopK
from gemma_scope.dictionaries.protocol import About
from gemma_scope.dictionaries.sae import Sae
from gemma_scope.errors import ConfigError
from gemma_scope.sites import Site


@dataclasses.dataclass(frozen=True, eq=False)
class Principal:
  """Mean and principal components of the vectors at a site.

  Attributes:
    site: The site.
    mean: The mean.
    components: Unit directions as rows, that of the largest variance first.
    variances: Variance along each.
  """

  site: Site
  mean: Float[np.ndarray, " d"]
  components: Float[np.ndarray, "d d"]
  variances: Float[np.ndarray, " d"]


def principal(site: Site, rows: Float[Array, "rows d"]) -> Principal:
  """Principal components of some rows, in float64.

  Raises:
    ConfigError: There are fewer rows than dimensions.
  """
  x = np.asarray(rows, np.float64)
  if len(x) < x.shape[1]:
    raise ConfigError(
      "Principal components need more rows than dimensions.",
      received=f"{len(x)} rows of {x.shape[1]} numbers",
      instead=f"{10 * x.shape[1]} rows or more",
    )
  mean = x.mean(axis=0)
  x = x - mean
  variances, vectors = np.linalg.eigh(x.T @ x / len(x))
  order = np.argsort(variances)[::-1]
  return Principal(site, mean, vectors.T[order], variances[order])


def pca(found: Principal, k: int) -> Sae:
  """The k first components; its L0 is k.

  Raises:
    ConfigError: There are not so many.
  """
  _check(k, len(found.components))
  return _signed(found, found.components[:k], Relu(), f"PCA {k}")


def pca_top_k(found: Principal, k: int) -> Sae:
  """For each token the k components on which it is largest.

  Raises:
    ConfigError: There are not so many.
  """
  _check(k, len(found.components))
  return _signed(found, found.components, TopK(k), f"PCA top {k}")


def random_top_k(
  found: Principal,
  k: int,
  *,
  width: int,
  rows: Float[Array, "rows d"],
  seed: int = 0,
) -> Sae:
  """Random directions, the k largest of which a token is made of.

  Args:
    found: Of the site; only the mean is used.
    k: How many are active.
    width: How many there are.
    rows: To fit the gain on.
    seed: Of the directions.

  Raises:
    ConfigError: k is above the width.
  """
  _check(k, width)
  d = len(found.mean)
  w = np.random.default_rng(seed).standard_normal((width, d))
  w /= np.linalg.norm(w, axis=1, keepdims=True)
  sae = _sae(found, w, w, TopK(k), f"random top {k}")
  x = jnp.asarray(rows, jnp.float32)
  made = np.asarray(sae(x), np.float64) - found.mean
  x = np.asarray(x, np.float64) - found.mean
  gain = float((made * x).sum() / max((made * made).sum(), 1e-30))
  return _sae(found, w, gain * w, TopK(k), f"random top {k}")


def _signed(
  found: Principal, components: np.ndarray, activation: Activation, name: str
) -> Sae:
  both = np.concatenate([components, -components])
  return _sae(found, both, both, activation, name)


def _sae(
  found: Principal,
  encoder: np.ndarray,
  decoder: np.ndarray,
  activation: Activation,
  name: str,
) -> Sae:
  """An SAE about the mean, from rows of directions."""

  def named(array: np.ndarray, *names: str) -> pz.nx.NamedArray:
    return pz.nx.wrap(jnp.asarray(array, jnp.float32), *names)

  sites = (found.site,)
  return Sae(
    w_enc=named(encoder.T, axes.INPUT, axes.LATENTS),
    b_enc=named(np.zeros(len(encoder)), axes.LATENTS),
    w_dec=named(decoder, axes.LATENTS, axes.OUTPUT),
    b_dec=named(found.mean, axes.OUTPUT),
    activation=activation,
    b_in=named(found.mean, axes.INPUT),
    about=About("sae", sites, sites, name=name),
  )


def _check(k: int, most: int) -> None:
  if not 0 < k <= most:
    raise ConfigError(
      "So many latents cannot be active.",
      received=f"k={k}",
      instead=f"a number from 1 to {most}",
    )
