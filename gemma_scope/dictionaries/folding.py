"""Equal dictionaries in another form.

    fold_input_bias    (x - b_in) @ W + b   ->  x @ W + (b - b_in @ W)
    fold_input_scale   trained on s * x     ->  one that reads x
    to_jump_relu       ReLU, gated          ->  JumpReLU where that is the same

Folding a bias changes the order of a sum, so latents agree to float32 rounding.
"""

import dataclasses
from typing import Any, TypeVar

import jax.numpy as jnp
from penzai import pz

from gemma_scope import axes
from gemma_scope.dictionaries.activations import (
  Activation,
  Gated,
  JumpRelu,
  Relu,
  jump_relu,
  name_of,
)
from gemma_scope.dictionaries.cross_layer import CrossLayer, LayerPart
from gemma_scope.dictionaries.maps import plain
from gemma_scope.dictionaries.single_layer import SingleLayer
from gemma_scope.dictionaries.vectors import product
from gemma_scope.errors import ConfigError

DictionaryT = TypeVar("DictionaryT", bound=Any)


def fold_input_bias(dictionary: DictionaryT) -> DictionaryT:
  """The dictionary without `b_in`, which moves into the encoder's bias.

  Args:
    dictionary: An SAE, transcoder or `CrossLayer`.

  Raises:
    ConfigError: It is gated: its two paths have biases of their own.
  """
  return _each_layer(dictionary, _fold_bias)


def fold_input_scale(dictionary: DictionaryT, scale: float) -> DictionaryT:
  """The dictionary of x, from one that was trained on scale * x.

  Its latents stay those of training, so that thresholds and L0 do; encoder and
  biases take the scale in. A transcoder's target is taken as scaled alike.

  Args:
    dictionary: An SAE, transcoder or `CrossLayer`.
    scale: What vectors were multiplied with in training, positive.
  """
  if not scale > 0:
    raise ConfigError(
      "Inputs were scaled by a positive number.",
      received=f"scale={scale!r}",
      instead="the scale that training used, such as 1 / mean norm",
    )

  def fold(layer: Any) -> Any:
    by = {"w_enc": scale, "w_dec": 1 / scale, "b_dec": 1 / scale}
    changed = {n: _times(getattr(layer, n), f) for n, f in by.items()}
    if layer.b_in is not None:
      changed["b_in"] = _times(layer.b_in, 1 / scale)
    return dataclasses.replace(layer, **changed)

  return _each_layer(dictionary, fold)


def to_jump_relu(dictionary: DictionaryT) -> DictionaryT:
  """The dictionary with JumpReLU, where one is equal to what it has.

  Args:
    dictionary: With ReLU or JumpReLU.

  Raises:
    ConfigError: TopK and gated latents are no thresholds.
  """

  def convert(layer: Any) -> Any:
    activation: Activation = layer.activation
    if isinstance(activation, JumpRelu):
      return layer
    if not isinstance(activation, Relu):
      raise ConfigError(
        "This activation is no threshold.",
        received=name_of(activation),
        instead="relu; for batch_top_k, batch_top_k_to_jump_relu with the "
        "threshold that training found",
      )
    zeros = jnp.zeros_like(plain(layer.b_enc, axes.LATENTS))
    return dataclasses.replace(layer, activation=jump_relu(zeros))

  return _each_layer(dictionary, convert)


def _fold_bias(layer: SingleLayer | LayerPart) -> Any:
  if layer.b_in is None:
    return layer
  if isinstance(layer.activation, Gated):
    raise ConfigError(
      "The bias of a gated dictionary cannot be folded: it has two.",
      received="gated, with b_in",
      instead="leave b_in where it is",
    )
  w_enc = plain(layer.w_enc, axes.INPUT, axes.LATENTS)
  moved = product(plain(layer.b_in, axes.INPUT)[None, :], w_enc)[0]
  b_enc = pz.nx.wrap(plain(layer.b_enc, axes.LATENTS) - moved, axes.LATENTS)
  return dataclasses.replace(layer, b_enc=b_enc, b_in=None)


def _each_layer(dictionary: Any, change: Any) -> Any:
  if isinstance(dictionary, CrossLayer):
    parts = tuple(change(part) for part in dictionary.parts)
    return dataclasses.replace(dictionary, parts=parts)
  if isinstance(dictionary, SingleLayer):
    return change(dictionary)
  raise ConfigError(
    "This is defined for SAEs, transcoders and cross-layer dictionaries.",
    received=type(dictionary).__name__,
    instead="an Sae, a Transcoder or a CrossLayer",
  )


def _times(array: pz.nx.NamedArray, factor: float) -> pz.nx.NamedArray:
  return array * jnp.asarray(factor, array.dtype)
