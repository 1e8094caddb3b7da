"""SAEs and transcoders -> folders that SAELens loads.

`SAE.load_from_disk(folder)` (for transcoders `Transcoder.load_from_disk`) of
SAELens 6 gives the same latents and reconstructions.
"""

import json
import os
import pathlib
from typing import Any

import numpy as np
from penzai import pz

from gemma_scope import axes, site_aliases
from gemma_scope.dictionaries.activations import (
  Gated,
  JumpRelu,
  TopK,
  name_of,
)
from gemma_scope.dictionaries.protocol import Dictionary
from gemma_scope.dictionaries.saelens import CONFIG, WEIGHTS
from gemma_scope.dictionaries.single_layer import SingleLayer
from gemma_scope.dictionaries.tensor_files import write_tensors
from gemma_scope.dictionaries.transcoder import Transcoder
from gemma_scope.errors import ConfigError
from gemma_scope.manifest import make_manifest
from gemma_scope.sites import Site
from gemma_scope.weights import folders

# (kind, activation, skip) -> architecture
_ARCHITECTURE = {
  ("sae", "relu", False): "standard",
  ("sae", "jump_relu", False): "jumprelu",
  ("sae", "gated", False): "gated",
  ("sae", "top_k", False): "topk",
  ("transcoder", "relu", False): "transcoder",
  ("transcoder", "relu", True): "skip_transcoder",
  ("transcoder", "jump_relu", False): "jumprelu_transcoder",
  ("transcoder", "jump_relu", True): "jumprelu_skip_transcoder",
}


def dictionary_to_saelens(
  dictionary: Dictionary, folder: str | os.PathLike
) -> pathlib.Path:
  """Writes a folder that `saelens_to_dictionary` reads back bit by bit.

  Args:
    dictionary: An SAE or transcoder; its `b_in` is None or equal to its
      decoder bias.
    folder: Where; it must not exist, or be empty.

  Returns:
    The folder.

  Raises:
    ConfigError: SAELens has no architecture for this dictionary.
  """
  if not isinstance(dictionary, SingleLayer):
    raise _no_architecture(type(dictionary).__name__)
  skip = dictionary.skip if isinstance(dictionary, Transcoder) else None
  activation = name_of(dictionary.activation)
  key = (dictionary.about.kind, activation, skip is not None)
  if key not in _ARCHITECTURE:
    raise _no_architecture(f"{key[0]} with {activation}")
  config = _config(dictionary, _ARCHITECTURE[key])
  manifest = make_manifest(config, model=dictionary.about.model)
  with folders.new_folder(folder) as made:
    write_tensors(made / WEIGHTS, _tensors(dictionary, skip))
    (made / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    (made / "manifest.json").write_text(manifest.to_json() + "\n")
  return pathlib.Path(folder)


def _tensors(
  dictionary: SingleLayer, skip: pz.nx.NamedArray | None
) -> dict[str, np.ndarray]:
  activation = dictionary.activation
  found = {
    "W_enc": (dictionary.w_enc, axes.INPUT, axes.LATENTS),
    "W_dec": (dictionary.w_dec, axes.LATENTS, axes.OUTPUT),
    "b_dec": (dictionary.b_dec, axes.OUTPUT),
  }
  if isinstance(activation, Gated):
    found["b_gate"] = (dictionary.b_enc, axes.LATENTS)
    found["b_mag"] = (activation.b_magnitude, axes.LATENTS)
    found["r_mag"] = (activation.log_gain, axes.LATENTS)
  else:
    found["b_enc"] = (dictionary.b_enc, axes.LATENTS)
  if isinstance(activation, JumpRelu):
    found["threshold"] = (activation.threshold, axes.LATENTS)
  if skip is not None:
    found["W_skip"] = (skip, axes.OUTPUT, axes.INPUT)
  return {
    name: np.asarray(array.unwrap(*names))
    for name, (array, *names) in found.items()
  }


def _config(dictionary: SingleLayer, architecture: str) -> dict[str, Any]:
  about = dictionary.about
  config: dict[str, Any] = {
    "architecture": architecture,
    "d_in": dictionary.width_in,
    "d_sae": dictionary.num_latents,
    "dtype": str(dictionary.w_enc.dtype),
    "device": "cpu",
    "apply_b_dec_to_input": _is_centred(dictionary),
    "normalize_activations": "none",
    "reshape_activations": "none",
  }
  if about.kind == "transcoder":
    config["d_out"] = dictionary.width_out
  if isinstance(dictionary.activation, TopK):
    config["k"] = dictionary.activation.k
    config["rescale_acts_by_decoder_norm"] = False
  metadata = _hooks(about.sites_in[0], "")
  if about.kind == "transcoder":
    metadata |= _hooks(about.sites_out[0], "_out")
  metadata |= {
    "model_name": f"google/{about.model}" if about.model else None,
    "prepend_bos": True,
    "exclude_special_tokens": True,
    "l0": about.l0,
    "matryoshka_prefixes": list(about.prefixes),
  }
  return {**config, "metadata": metadata}


def _hooks(site: Site, suffix: str) -> dict[str, str]:
  names = site_aliases.names_elsewhere(site)
  keys = {"hook_name": "TransformerLens", "hf_hook_name": "Hugging Face"}
  return {
    key + suffix: names[tool][0] for key, tool in keys.items() if tool in names
  }


def _is_centred(dictionary: SingleLayer) -> bool:
  """Whether the decoder's bias is taken off before encoding."""
  if dictionary.b_in is None:
    return False
  b_in = np.asarray(dictionary.b_in.unwrap(axes.INPUT))
  b_dec = np.asarray(dictionary.b_dec.unwrap(axes.OUTPUT))
  if dictionary.about.kind == "sae" and np.array_equal(b_in, b_dec):
    return True
  raise ConfigError(
    "SAELens knows one pre-encoder bias: the decoder's own, of an SAE.",
    received="a dictionary whose b_in is another",
    instead="gs.dictionaries.fold_input_bias(dictionary) first",
  )


def _no_architecture(received: str) -> ConfigError:
  kinds = dict.fromkeys(" ".join(map(str, k[:2])) for k in _ARCHITECTURE)
  return ConfigError(
    "SAELens has no architecture for this dictionary.",
    received=received,
    instead=f"one of {', '.join(kinds)}; a trained batch_top_k becomes "
    "jump_relu with batch_top_k_to_jump_relu",
  )
