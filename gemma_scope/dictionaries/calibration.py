"""Rounding to int8 rows that heeds what a dictionary reads.

Rounding each weight to the nearest step makes errors that add up where inputs
are large or move together. Here the weights of one input after the other are
rounded, and those not rounded yet make up for what was lost, so that products
with the vectors seen change least:

    minimise  sum over x of |(x - mean) (W - Q)|^2,  Q a matrix of int8 rows

What the mean loses goes into the biases, which stay exact. Source: Frantar et
al. 2023, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers", here without blocks and with a fixed step for each row.
"""

import dataclasses
from typing import Any, TypeVar

import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np
from penzai import pz

from gemma_scope.dictionaries import own_format
from gemma_scope.dictionaries.arrays import names_of
from gemma_scope.dictionaries.maps import without_bias
from gemma_scope.dictionaries.single_layer import SingleLayer
from gemma_scope.dictionaries.transcoder import Transcoder
from gemma_scope.errors import ConfigError

SingleT = TypeVar("SingleT", bound=SingleLayer)
_DAMPING = 0.01  # of the mean variance: directions never seen count for little


def calibrated(
  dictionary: SingleT,
  x: Float[Array, "rows d"],
  *,
  levels: int = own_format.LEVELS,
) -> SingleT:
  """A dictionary that int8 rows hold exactly, near the given one on `x`.

  Args:
    dictionary: A dictionary of one layer.
    x: Some thousands of the vectors that it reads.
    levels: Steps on either side of zero.

  Returns:
    A dictionary that `own_format` stores with as many levels without a loss.

  Raises:
    ConfigError: The dictionary is of several layers, or int8 has no so many
      levels.
  """
  if not isinstance(dictionary, SingleLayer):
    raise ConfigError(
      "Only dictionaries of one layer are calibrated.",
      received=type(dictionary).__name__,
      instead="an SAE or a transcoder; `int8=True` alone rounds any",
    )
  read = np.asarray(without_bias(dictionary.encoder, jnp.asarray(x)))
  encoder, into_latents = _rounded(dictionary.w_enc, read, levels)
  decoder, into_output = _rounded(
    dictionary.w_dec, np.asarray(dictionary.encode(x)), levels
  )
  changed: dict[str, Any] = {"w_enc": encoder, "w_dec": decoder}
  if isinstance(dictionary, Transcoder) and dictionary.skip is not None:
    changed["skip"], beside = _rounded(dictionary.skip, np.asarray(x), levels)
    into_output += beside
  return dataclasses.replace(
    dictionary,
    b_enc=_plus(dictionary.b_enc, into_latents),
    b_dec=_plus(dictionary.b_dec, into_output),
    **changed,
  )


def _rounded(
  matrix: pz.nx.NamedArray, inputs: np.ndarray, levels: int
) -> tuple[pz.nx.NamedArray, np.ndarray]:
  """The rounded matrix, and what a bias behind it must add.

  Args:
    matrix: Its first axis is what it is multiplied with.
    inputs: [rows, n] of these.
    levels: Steps on either side of zero.
  """
  names = names_of(matrix)
  weights = np.asarray(matrix.unwrap(*names), np.float64)
  scale = own_format.row_scales(
    weights.astype(np.float32), names, levels
  ).astype(np.float64)
  mean, covariance = _moments(inputs)
  scale = np.broadcast_to(scale, weights.shape)
  found = _in_steps(weights, scale, covariance, levels)
  lost = mean @ (weights - found)
  return pz.nx.wrap(jnp.asarray(found, jnp.float32), *names), lost


def _moments(
  inputs: np.ndarray,
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, "n n"]]:
  """Mean and covariance; long vectors count as ones of median length.

  Without that a few tokens of huge norm would decide all.
  """
  inputs = np.asarray(inputs, np.float64)
  squared = np.square(inputs).sum(axis=1)
  weight = np.median(squared) / np.maximum(squared, np.median(squared))
  mean = np.average(inputs, axis=0, weights=weight)
  centred = inputs - mean
  return mean, (centred * weight[:, None]).T @ centred / weight.sum()


def _in_steps(
  weights: Float[np.ndarray, "n m"],
  scale: Float[np.ndarray, "n m"],
  covariance: Float[np.ndarray, "n n"],
  levels: int,
) -> Float[np.ndarray, "n m"]:
  """At most `levels` steps of `scale` each, so that products differ least.

  The largest weight of every row stays where it is, for it says the scale.
  """
  order = np.argsort(-np.diag(covariance), kind="stable")
  damping = _DAMPING * np.mean(np.diag(covariance)) or 1.0
  inverse = np.linalg.inv(covariance + damping * np.eye(len(covariance)))
  carry = np.linalg.cholesky(inverse[np.ix_(order, order)]).T
  left, scale = weights[order], scale[order]
  nearest, found = np.rint(left / scale), np.empty_like(left)
  for i in range(len(left)):
    steps = np.clip(np.rint(left[i] / scale[i]), -levels, levels)
    largest = np.abs(nearest[i]) == levels
    found[i] = np.where(largest, nearest[i], steps) * scale[i]
    lost = (left[i] - found[i]) / carry[i, i]
    left[i + 1 :] -= carry[i, i + 1 :, None] * lost
  result = np.empty_like(found)
  result[order] = found
  return result


def _plus(bias: pz.nx.NamedArray, lost: np.ndarray) -> pz.nx.NamedArray:
  (name,) = names_of(bias)
  return pz.nx.wrap(jnp.asarray(bias.unwrap(name) + lost, jnp.float32), name)
