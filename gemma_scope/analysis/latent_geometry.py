"""How the vectors of one latent lie: lengths, and the latents beside it.

Cosines of decoder rows within a dictionary: latents that share a meaning, or
that one was split into, point alike. Of several layers the rows are taken
together. Plain values of numpy arrays.
"""

import dataclasses
from typing import Any

import numpy as np

from gemma_scope import axes
from gemma_scope.dictionaries.activations import JumpRelu
from gemma_scope.dictionaries.protocol import Layered
from gemma_scope.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class LatentGeometry:
  """Lengths and directions of one latent.

  Attributes:
    encoder_norm: Length of what it reads along.
    decoder_norm: Length of what it writes.
    cosine: Between both; None where they are of different sites.
    bias: Of the encoder.
    threshold: Below which it is inactive; None where it has none of its own.
    neighbours: (latent, cosine of the decoder rows), the largest first.
  """

  encoder_norm: float
  decoder_norm: float
  cosine: float | None
  bias: float
  threshold: float | None
  neighbours: tuple[tuple[int, float], ...]


def latent_geometry(
  dictionary: Any, index: int, *, neighbours: int = 8
) -> LatentGeometry:
  """Measures the vectors of one latent.

  Args:
    dictionary: An SAE, transcoder or crosscoder.
    index: Which latent.
    neighbours: How many others to name.

  Raises:
    ConfigError: There is no such latent, or each layer has its own.
  """
  _check(dictionary, index)
  reads = _rows(dictionary.w_enc, axes.INPUT)[index]
  rows = _rows(dictionary.w_dec, axes.OUTPUT)
  lengths = np.linalg.norm(rows, axis=1)
  cosines = rows @ rows[index] / np.maximum(lengths * lengths[index], 1e-30)
  order = np.argsort(-cosines, kind="stable")
  chosen = [int(j) for j in order if j != index][:neighbours]
  own = None
  if dictionary.sites_in == dictionary.sites_out:
    product = float(np.linalg.norm(reads)) * float(lengths[index])
    own = float(reads @ rows[index]) / max(product, 1e-30)
  return LatentGeometry(
    encoder_norm=float(np.linalg.norm(reads)),
    decoder_norm=float(lengths[index]),
    cosine=own,
    bias=float(np.asarray(dictionary.b_enc.data_array)[index]),
    threshold=_threshold(dictionary.activation, index),
    neighbours=tuple((j, float(cosines[j])) for j in chosen),
  )


def _rows(weights: Any, inside: str) -> np.ndarray:
  """[latents, numbers] float32; of several sites side by side."""
  several = weights if isinstance(weights, tuple) else (weights,)
  arrays = [np.asarray(w.unwrap(axes.LATENTS, inside)) for w in several]
  return np.concatenate(arrays, axis=1).astype(np.float32)


def _threshold(activation: Any, index: int) -> float | None:
  if not isinstance(activation, JumpRelu):
    return None
  return float(np.asarray(activation.threshold.data_array)[index])


def _check(dictionary: Any, index: int) -> None:
  if isinstance(dictionary, Layered):
    raise ConfigError(
      "Each layer of this dictionary has latents of its own.",
      received=str(dictionary.about),
      instead="an SAE, transcoder or crosscoder",
    )
  if not 0 <= index < dictionary.num_latents:
    raise ConfigError(
      "There is no such latent.",
      received=f"latent {index} of {dictionary.about}",
      instead=f"a number from 0 to {dictionary.num_latents - 1}",
    )
