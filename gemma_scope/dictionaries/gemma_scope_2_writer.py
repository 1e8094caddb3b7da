"""Dictionaries -> folders in the layout of Gemma Scope 2.

Writes config.json, the parameters and a manifest. What the layout cannot hold
(another activation than JumpReLU, a pre-encoder bias, latents shared by several
layers) is refused, with the way to convert it.
"""

from collections.abc import Mapping
import json
import os
import pathlib

import numpy as np
from penzai import pz

from gemma_scope import axes, site_aliases
from gemma_scope.dictionaries.activations import Activation, JumpRelu, name_of
from gemma_scope.dictionaries.cross_layer import CrossLayer, LayerPart
from gemma_scope.dictionaries.gemma_scope_2 import SKIP
from gemma_scope.dictionaries.protocol import About, Dictionary
from gemma_scope.dictionaries.single_layer import SingleLayer
from gemma_scope.dictionaries.tensor_files import write_tensors
from gemma_scope.dictionaries.transcoder import Transcoder
from gemma_scope.errors import ConfigError
from gemma_scope.manifest import make_manifest
from gemma_scope.sites import Site
from gemma_scope.weights import folders


def dictionary_to_gemma_scope_2(
  dictionary: Dictionary, folder: str | os.PathLike
) -> pathlib.Path:
  """Writes a folder that `gemma_scope_2_to_dictionary` reads back bit by bit.

  Args:
    dictionary: A JumpReLU SAE or transcoder, or a `CrossLayer` of such parts,
      without pre-encoder bias.
    folder: Where; it must not exist, or be empty.

  Returns:
    The folder.

  Raises:
    ConfigError: The layout cannot hold this dictionary.
  """
  files = _files(dictionary)
  config = _config(dictionary)
  manifest = make_manifest(config, model=dictionary.about.model)
  with folders.new_folder(folder) as made:
    for name, tensors in files.items():
      write_tensors(made / name, tensors)
    (made / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (made / "manifest.json").write_text(manifest.to_json() + "\n")
  return pathlib.Path(folder)


def _files(dictionary: Dictionary) -> dict[str, dict[str, np.ndarray]]:
  if isinstance(dictionary, CrossLayer):
    count = len(dictionary.parts)
    return {
      f"params_layer_{i}.safetensors": _layer_tensors(part, count)
      for i, part in enumerate(dictionary.parts)
    }
  if isinstance(dictionary, SingleLayer):
    skip = dictionary.skip if isinstance(dictionary, Transcoder) else None
    tensors = _tensors(dictionary, dictionary.activation, skip)
    w_dec = _array(dictionary.w_dec, axes.LATENTS, axes.OUTPUT)
    return {"params.safetensors": {**tensors, "w_dec": w_dec}}
  raise ConfigError(
    "Gemma Scope 2 has no layout for this kind of dictionary.",
    received=type(dictionary).__name__,
    instead="an Sae, a Transcoder or a CrossLayer",
  )


def _layer_tensors(part: LayerPart, count: int) -> dict[str, np.ndarray]:
  """The tensors of one layer, its decoder padded with zeros to all layers."""
  tensors = _tensors(part, part.activation, part.skip)
  w_dec = _array(part.w_dec, axes.LATENTS, axes.LAYER, axes.OUTPUT)
  before = count - w_dec.shape[1]
  padded = np.pad(w_dec, ((0, 0), (before, 0), (0, 0)))
  return {**tensors, "w_dec": padded}


def _tensors(
  layer: SingleLayer | LayerPart,
  activation: Activation,
  skip: pz.nx.NamedArray | None,
) -> dict[str, np.ndarray]:
  """All but the decoder."""
  if not isinstance(activation, JumpRelu):
    raise ConfigError(
      "Gemma Scope 2 dictionaries are JumpReLU.",
      received=f"activation {name_of(activation)}",
      instead="gs.dictionaries.to_jump_relu(…) where there is an equal one, or "
      "dictionary_to_saelens",
    )
  if layer.b_in is not None:
    raise ConfigError(
      "Gemma Scope 2 dictionaries have no pre-encoder bias.",
      received="a dictionary with b_in",
      instead="gs.dictionaries.fold_input_bias(dictionary) first",
    )
  tensors = {
    "w_enc": _array(layer.w_enc, axes.INPUT, axes.LATENTS),
    "b_enc": _array(layer.b_enc, axes.LATENTS),
    "threshold": _array(activation.threshold, axes.LATENTS),
    "b_dec": _array(layer.b_dec, axes.OUTPUT),
  }
  if skip is not None:
    tensors[SKIP] = _array(skip, axes.INPUT, axes.OUTPUT)
  return tensors


def _array(array: pz.nx.NamedArray, *names: str) -> np.ndarray:
  return np.asarray(array.unwrap(*names))


def _config(dictionary: Dictionary) -> Mapping[str, object]:
  about: About = dictionary.about
  layers = len(about.sites_in) if isinstance(dictionary, CrossLayer) else 1
  skips = (
    dictionary.parts if isinstance(dictionary, CrossLayer) else (dictionary,)
  )
  return {
    "hf_hook_point_in": _hooks(about.sites_in),
    "hf_hook_point_out": _hooks(about.sites_out),
    "width": layers * dictionary.num_latents,
    "model_name": f"google/{about.model}" if about.model else None,
    "architecture": "jump_relu",
    "l0": about.l0,
    "affine_connection": getattr(skips[0], "skip", None) is not None,
    "type": about.kind,
    "matryoshka_prefixes": list(about.prefixes),
  }


def _hooks(sites: tuple[Site, ...]) -> str | list[str]:
  names = []
  for site in sites:
    found = site_aliases.names_elsewhere(site).get("Hugging Face")
    if not found:
      raise ConfigError(
        "A site of the dictionary has no name in this layout.",
        received=str(site),
        instead="a site that is a module's input or output in transformers",
      )
    names.append(found[0])
  return names[0] if len(names) == 1 else names
