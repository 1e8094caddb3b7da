"""SAELens folders -> SAEs and transcoders.

    cfg.json                  architecture, sizes, hook names
    sae_weights.safetensors   W_enc [d_in, m], W_dec [m, d_out], b_enc, b_dec;
                              threshold; b_gate, b_mag, r_mag;
                              W_skip [d_out, d_in]

Read are the architectures standard, jumprelu, gated and topk, and transcoder,
skip_transcoder and their jumprelu kinds. `apply_b_dec_to_input` becomes `b_in`.
Inputs that SAELens normalises while it runs (layer_norm, whitening) are not
read: such a dictionary is no function of the site alone.
"""

from collections.abc import Mapping
import json
import os
import pathlib
from typing import Any

import numpy as np

from gemma_scope import axes, site_aliases
from gemma_scope.dictionaries.activations import (
  Activation,
  Gated,
  JumpRelu,
  Relu,
  TopK,
)
from gemma_scope.dictionaries.arrays import named
from gemma_scope.dictionaries.gemma_scope_2_about import model_name
from gemma_scope.dictionaries.protocol import About
from gemma_scope.dictionaries.sae import Sae
from gemma_scope.dictionaries.singles import single_layer
from gemma_scope.dictionaries.tensor_files import (
  Tensors,
  check_shapes,
  read_tensors,
)
from gemma_scope.dictionaries.transcoder import Transcoder
from gemma_scope.errors import CheckpointError, ConfigError, SiteError
from gemma_scope.sites import Site
from gemma_scope.weights import catalog

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
GATED = {"b_gate": ("m",), "b_mag": ("m",), "r_mag": ("m",)}
# Architecture -> tensors beside W_enc, W_dec and b_dec.
ARCHITECTURES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
  "standard": {"b_enc": ("m",)},
  "jumprelu": {"b_enc": ("m",), "threshold": ("m",)},
  "gated": GATED,
  "topk": {"b_enc": ("m",)},
  "transcoder": {"b_enc": ("m",)},
  "skip_transcoder": {"b_enc": ("m",), "W_skip": ("e", "d")},
  "jumprelu_transcoder": {"b_enc": ("m",), "threshold": ("m",)},
  "jumprelu_skip_transcoder": {
    "b_enc": ("m",),
    "threshold": ("m",),
    "W_skip": ("e", "d"),
  },
}


def saelens_to_dictionary(
  folder: str | os.PathLike, *, name: str | None = None
) -> Sae | Transcoder:
  """Opens a dictionary that SAELens wrote.

  Args:
    folder: With cfg.json and sae_weights.safetensors.
    name: What it is called; the folder's name by default.

  Returns:
    The dictionary with mapped arrays.

  Raises:
    CheckpointError: A file is missing, damaged or misshapen.
    ConfigError: An architecture or option that is not read here.
    SiteError: Its hooks are no sites of Gemma 3.
  """
  folder = pathlib.Path(folder)
  config = read_config(folder)
  architecture = _architecture(config, folder)
  tensors = read_tensors(folder / WEIGHTS)
  is_transcoder = "transcoder" in architecture
  out = "e" if is_transcoder else "d"
  pattern = {
    "W_enc": ("d", "m"),
    "W_dec": ("m", out),
    "b_dec": (out,),
    **ARCHITECTURES[architecture],
  }
  check_shapes(tensors, pattern, folder / WEIGHTS)
  centred = bool(config.get("apply_b_dec_to_input")) and not is_transcoder
  b_enc = tensors["b_gate" if architecture == "gated" else "b_enc"]
  w_enc, w_dec, b_enc = _without_rescaling(config, tensors, b_enc)
  skip = tensors.get("W_skip")
  return single_layer(
    _about(config, "transcoder" if is_transcoder else "sae", folder, name),
    encoder=(
      named(w_enc, axes.INPUT, axes.LATENTS),
      named(b_enc, axes.LATENTS),
    ),
    decoder=(
      named(w_dec, axes.LATENTS, axes.OUTPUT),
      named(tensors["b_dec"], axes.OUTPUT),
    ),
    activation=_activation(architecture, config, tensors, folder),
    b_in=named(tensors["b_dec"], axes.INPUT) if centred else None,
    skip=None if skip is None else named(skip.T, axes.INPUT, axes.OUTPUT),
  )


def read_config(folder: pathlib.Path) -> dict[str, Any]:
  """cfg.json with the entries of its `metadata` beside the others.

  Raises:
    CheckpointError: It is missing or no JSON object.
  """
  path = folder / CONFIG
  try:
    config = json.loads(path.read_bytes())
    return {**config.get("metadata", {}), **config}
  except (OSError, ValueError, AttributeError, TypeError) as error:
    raise CheckpointError(
      "The cfg.json of a SAELens dictionary cannot be read.",
      received=f"{path}: {error}",
      instead="cfg.json and sae_weights.safetensors as SAELens writes them",
    ) from error


def _architecture(config: Mapping[str, Any], folder: pathlib.Path) -> str:
  """The architecture, old spellings included; refuses what is not read."""
  name = str(config.get("architecture", "standard"))
  old = config.get("activation_fn", config.get("activation_fn_str", "relu"))
  if name == "standard" and old == "topk":
    name = "topk"
  normalisation = config.get("normalize_activations", "none")
  if name not in ARCHITECTURES or (name == "standard" and old != "relu"):
    raise ConfigError(
      "This SAELens architecture is not read.",
      received=f"{folder}: {name} with {old}",
      instead=f"one of {', '.join(ARCHITECTURES)}; SAELens saves batchtopk "
      "for inference as jumprelu",
    )
  if normalisation not in ("none", "expected_average_only_in", False, None):
    raise ConfigError(
      "SAELens normalises the inputs of this dictionary while it runs.",
      received=f"{folder}: normalize_activations={normalisation!r}",
      instead="a dictionary with the normalisation folded in",
    )
  if normalisation == "expected_average_only_in":
    raise ConfigError(
      "The scale of this dictionary's inputs is not folded in.",
      received=f"{folder}: normalize_activations={normalisation!r}",
      instead="sae.fold_activation_norm_scaling_factor(…) in SAELens, and save",
    )
  return name


def _without_rescaling(
  config: Mapping[str, Any], tensors: Tensors, b_enc: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Encoder, decoder and bias of a TopK that ranks by decoder norms.

  Multiplying the encoder by the norms and dividing the decoder by them is the
  same dictionary without the option.
  """
  w_enc, w_dec = tensors["W_enc"], tensors["W_dec"]
  if not config.get("rescale_acts_by_decoder_norm"):
    return w_enc, w_dec, b_enc
  norms = np.linalg.norm(w_dec, axis=1)
  return w_enc * norms[None, :], w_dec / norms[:, None], b_enc * norms


def _activation(
  architecture: str,
  config: Mapping[str, Any],
  tensors: Tensors,
  folder: pathlib.Path,
) -> Activation:
  if "threshold" in ARCHITECTURES[architecture]:
    return JumpRelu(named(tensors["threshold"], axes.LATENTS))
  if architecture == "gated":
    gain = named(tensors["r_mag"], axes.LATENTS)
    return Gated(gain, named(tensors["b_mag"], axes.LATENTS))
  if architecture == "topk":
    old = config.get("activation_fn_kwargs") or {}
    k = config.get("k", old.get("k"))
    if not isinstance(k, int):
      raise CheckpointError(
        "The configuration of a TopK dictionary lacks its k.",
        received=f"{folder / CONFIG}: k={k!r}",
        instead="cfg.json as SAELens writes it",
      )
    return TopK(k)
  return Relu()


def _about(
  config: Mapping[str, Any], kind: str, folder: pathlib.Path, name: str | None
) -> About:
  model = model_name(config.get("model_name"))
  sizes = catalog.lookup(model).sizes if model else None
  depth = sizes.num_layers if sizes else None
  first = _site(config, ("hf_hook_name", "hook_name"), depth, folder)
  last = first
  if kind == "transcoder":
    out = ("hf_hook_name_out", "hook_name_out")
    last = _site(config, out, depth, folder)
  return About(
    kind=kind,
    sites_in=(first,),
    sites_out=(last,),
    heads=sizes.num_heads if sizes else None,
    l0=config.get("l0"),
    prefixes=tuple(config.get("matryoshka_prefixes") or ()),
    model=model,
    name=name or folder.name,
  )


def _site(
  config: Mapping[str, Any],
  keys: tuple[str, ...],
  depth: int | None,
  folder: pathlib.Path,
) -> Site:
  """The site of the first hook name that is given, Hugging Face's first."""
  for key in keys:
    if config.get(key):
      return site_aliases.alias_to_site(str(config[key]), depth)
  raise SiteError(
    "The configuration does not say where the dictionary belongs.",
    received=f"{folder / CONFIG}: no {' or '.join(keys)}",
    instead='"hook_name": "blocks.12.hook_resid_post" in cfg.json',
  )
