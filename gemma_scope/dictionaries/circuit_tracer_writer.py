"""Transcoders of every layer, or a CLT -> a folder of circuit-tracer.

The folder is what `circuit_tracer` loads from its cache, and what it uploads to
a hub. A skip of a CLT has no place in that layout and is refused.
"""

from collections.abc import Sequence
import os
import pathlib
from typing import Any

import numpy as np
from penzai import pz
import yaml

from gemma_scope import axes, site_aliases
from gemma_scope.dictionaries.activations import (
  Activation,
  JumpRelu,
  Relu,
  name_of,
)
from gemma_scope.dictionaries.circuit_tracer import (
  CONFIG,
  HOOKS,
  KINDS,
  THRESHOLD,
)
from gemma_scope.dictionaries.cross_layer import CrossLayer
from gemma_scope.dictionaries.tensor_files import write_tensors
from gemma_scope.dictionaries.transcoder import Transcoder
from gemma_scope.errors import ConfigError
from gemma_scope.manifest import make_manifest
from gemma_scope.sites import Site
from gemma_scope.weights import folders

Files = dict[str, dict[str, np.ndarray]]


def dictionaries_to_circuit_tracer(
  dictionaries: Sequence[Transcoder] | CrossLayer, folder: str | os.PathLike
) -> pathlib.Path:
  """Writes what `circuit_tracer_to_dictionaries` reads back bit by bit.

  Args:
    dictionaries: One transcoder for each layer from 0, or a causal CLT, with
      ReLU or JumpReLU and without pre-encoder bias.
    folder: Where; it must not exist, or be empty.

  Returns:
    The folder.

  Raises:
    ConfigError: The layout cannot hold them.
  """
  if isinstance(dictionaries, CrossLayer):
    about, kind = dictionaries.about, KINDS[1]
    files = _cross_layer_files(dictionaries)
    ends = dictionaries.sites_in, dictionaries.sites_out
  else:
    about, kind = dictionaries[0].about, KINDS[0]
    files = _transcoder_files(dictionaries)
    ends = (
      tuple(d.sites_in[0] for d in dictionaries),
      tuple(d.sites_out[0] for d in dictionaries),
    )
  config: dict[str, Any] = {
    "model_name": f"google/{about.model}" if about.model else None,
    "model_kind": kind,
    "feature_input_hook": _hook(ends[0]),
    "feature_output_hook": _hook(ends[1]),
    "scan": about.name,
  }
  manifest = make_manifest(config, model=about.model)
  with folders.new_folder(folder) as made:
    for name, tensors in files.items():
      write_tensors(made / name, tensors)
    (made / CONFIG).write_text(yaml.safe_dump(config))
    (made / "manifest.json").write_text(manifest.to_json() + "\n")
  return pathlib.Path(folder)


def _transcoder_files(transcoders: Sequence[Transcoder]) -> Files:
  files = {}
  for i, each in enumerate(transcoders):
    tensors = {
      "W_enc": _array(each.w_enc, axes.LATENTS, axes.INPUT),
      "W_dec": _array(each.w_dec, axes.LATENTS, axes.OUTPUT),
      "b_enc": _array(each.b_enc, axes.LATENTS),
      "b_dec": _array(each.b_dec, axes.OUTPUT),
    }
    if each.skip is not None:
      tensors["W_skip"] = _array(each.skip, axes.OUTPUT, axes.INPUT)
    tensors |= _threshold(each.activation, each.b_in, THRESHOLD)
    files[f"layer_{i}.safetensors"] = tensors
  return files


def _cross_layer_files(clt: CrossLayer) -> Files:
  if not clt.causal or any(part.skip is not None for part in clt.parts):
    raise ConfigError(
      "This layout holds causal cross-layer transcoders without a skip.",
      received=f"{clt.about}, causal={clt.causal}, with a skip"
      if clt.causal
      else f"{clt.about}, not causal",
      instead="dictionary_to_gemma_scope_2",
    )
  files: Files = {}
  for i, part in enumerate(clt.parts):
    files[f"W_enc_{i}.safetensors"] = {
      f"W_enc_{i}": _array(part.w_enc, axes.LATENTS, axes.INPUT),
      f"b_enc_{i}": _array(part.b_enc, axes.LATENTS),
      f"b_dec_{i}": _array(part.b_dec, axes.OUTPUT),
      **_threshold(part.activation, part.b_in, f"threshold_{i}"),
    }
    w_dec = _array(part.w_dec, axes.LATENTS, axes.LAYER, axes.OUTPUT)
    files[f"W_dec_{i}.safetensors"] = {f"W_dec_{i}": w_dec}
  return files


def _threshold(
  activation: Activation, b_in: pz.nx.NamedArray | None, key: str
) -> dict[str, np.ndarray]:
  if b_in is not None or not isinstance(activation, JumpRelu | Relu):
    raise ConfigError(
      "circuit-tracer has ReLU and JumpReLU, and no pre-encoder bias.",
      received=f"{name_of(activation)}, b_in {'set' if b_in else 'None'}",
      instead="gs.dictionaries.fold_input_bias(dictionary) for the bias",
    )
  if isinstance(activation, Relu):
    return {}
  return {key: _array(activation.threshold, axes.LATENTS)}


def _hook(sites: Sequence[Site]) -> str:
  """The one hook of layers 0, 1, …, without its block."""
  names = {site.name for site in sites}
  layers = [site.layer for site in sites]
  if len(names) != 1 or layers != list(range(len(sites))):
    raise ConfigError(
      "circuit-tracer wants every layer from 0, at one site.",
      received=", ".join(map(str, sites)),
      instead="the dictionaries of all layers, in order",
    )
  own = {site: hook for hook, site in HOOKS.items()}
  if sites[0].name in own:
    return own[sites[0].name]
  elsewhere = site_aliases.names_elsewhere(sites[0])["TransformerLens"][0]
  return elsewhere.removeprefix("blocks.0.")


def _array(array: pz.nx.NamedArray, *names: str) -> np.ndarray:
  return np.ascontiguousarray(array.unwrap(*names))
