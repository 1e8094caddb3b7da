"""Folders of circuit-tracer -> transcoders of every layer, or a CLT.

    config.yaml             model_name, model_kind, feature_input_hook, …
    layer_{i}.safetensors   W_enc [m, d], W_dec [m, d], b_enc, b_dec,
                            activation_function.threshold, W_skip [d_out, d_in]
    W_enc_{i}.safetensors   W_enc_i [m, d], b_enc_i, b_dec_i, threshold_i
    W_dec_{i}.safetensors   W_dec_i [m, n - i, d]

Its JumpReLU does not clamp: p * (p > threshold). That is ours where thresholds
are not negative, and others are refused. Its hooks are TransformerLens's, or
"mlp.hook_in", its own name for what Gemma Scope 2's transcoders read.
"""

from collections.abc import Sequence
import os
import pathlib
import re
from typing import Any

import numpy as np
import yaml

from gemma_scope import axes, site_aliases
from gemma_scope.dictionaries.activations import Activation, JumpRelu, Relu
from gemma_scope.dictionaries.arrays import named
from gemma_scope.dictionaries.cross_layer import CrossLayer, LayerPart
from gemma_scope.dictionaries.gemma_scope_2_about import model_name
from gemma_scope.dictionaries.protocol import About
from gemma_scope.dictionaries.singles import single_layer
from gemma_scope.dictionaries.tensor_files import (
  Pattern,
  Tensors,
  check_shapes,
  read_tensors,
)
from gemma_scope.dictionaries.transcoder import Transcoder
from gemma_scope.errors import CheckpointError, ConfigError, SiteError
from gemma_scope.sites import Site

CONFIG = "config.yaml"
THRESHOLD = "activation_function.threshold"
# circuit-tracer's name -> our site, where TransformerLens has no such hook.
HOOKS = {"mlp.hook_in": "mlp_in"}
KINDS = ("transcoder_set", "cross_layer_transcoder")


def circuit_tracer_to_dictionaries(
  folder: str | os.PathLike, *, name: str | None = None
) -> tuple[Transcoder, ...] | CrossLayer:
  """Opens what circuit-tracer wrote.

  Args:
    folder: With config.yaml and the files of all layers.
    name: What it is called; `scan` of the configuration by default.

  Returns:
    One transcoder for each layer, or a CLT; arrays are mapped.

  Raises:
    CheckpointError: A file is missing, damaged or misshapen.
    ConfigError: A kind or threshold that is not read here.
    SiteError: Its hooks are no sites of Gemma 3.
  """
  folder = pathlib.Path(folder)
  config = read_config(folder)
  if config.get("model_kind") not in KINDS:
    raise ConfigError(
      "This kind of circuit-tracer model is not read.",
      received=f"{folder / CONFIG}: model_kind={config.get('model_kind')!r}",
      instead=" or ".join(KINDS),
    )
  called = str(name or config.get("scan") or folder.name)
  if config["model_kind"] == KINDS[0]:
    count = _count(folder, r"layer_(\d+)\.safetensors")
    return tuple(_transcoder(folder, config, i, called) for i in range(count))
  count = _count(folder, r"W_enc_(\d+)\.safetensors")
  return _cross_layer(folder, config, count, called)


def read_config(folder: pathlib.Path) -> dict[str, Any]:
  """config.yaml.

  Raises:
    CheckpointError: It is missing or no mapping.
  """
  path = folder / CONFIG
  try:
    return dict(yaml.safe_load(path.read_bytes()))
  except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
    raise CheckpointError(
      "The config.yaml of a circuit-tracer folder cannot be read.",
      received=f"{path}: {error}",
      instead="config.yaml with model_name, model_kind, feature_input_hook and "
      "feature_output_hook",
    ) from error


def _count(folder: pathlib.Path, pattern: str) -> int:
  """How many layers there are; refuses gaps."""
  names = [re.fullmatch(pattern, p.name) for p in folder.iterdir()]
  found = sorted(int(m[1]) for m in names if m)
  if not found or found != list(range(len(found))):
    raise CheckpointError(
      "The folder lacks layers of the dictionary.",
      received=f"{folder}: layers {found}",
      instead="the files of all layers from 0",
    )
  return len(found)


def _transcoder(
  folder: pathlib.Path, config: dict[str, Any], layer: int, name: str
) -> Transcoder:
  path = folder / f"layer_{layer}.safetensors"
  tensors = read_tensors(path)
  pattern: dict[str, tuple[str | int, ...]] = {
    "W_enc": ("m", "d"),
    "W_dec": ("m", "e"),
    "b_enc": ("m",),
    "b_dec": ("e",),
  }
  optional: Pattern = {THRESHOLD: ("m",), "W_skip": ("e", "d")}
  pattern |= {k: v for k, v in optional.items() if k in tensors}
  check_shapes(tensors, pattern, path)
  skip = tensors.get("W_skip")
  made = single_layer(
    About(
      "transcoder", *_sites(config, [layer]), model=_model(config), name=name
    ),
    encoder=(
      named(tensors["W_enc"].T, axes.INPUT, axes.LATENTS),
      named(tensors["b_enc"], axes.LATENTS),
    ),
    decoder=(
      named(tensors["W_dec"], axes.LATENTS, axes.OUTPUT),
      named(tensors["b_dec"], axes.OUTPUT),
    ),
    activation=_activation(tensors.get(THRESHOLD), path),
    skip=None if skip is None else named(skip.T, axes.INPUT, axes.OUTPUT),
  )
  assert isinstance(made, Transcoder)
  return made


def _cross_layer(
  folder: pathlib.Path, config: dict[str, Any], count: int, name: str
) -> CrossLayer:
  parts = tuple(_layer_part(folder, i, count) for i in range(count))
  sites = _sites(config, range(count))
  about = About("clt", *sites, model=_model(config), name=name)
  return CrossLayer(parts, about, causal=True)


def _layer_part(folder: pathlib.Path, i: int, count: int) -> LayerPart:
  path = folder / f"W_enc_{i}.safetensors"
  tensors = _renamed(read_tensors(path), i)
  tensors |= _renamed(read_tensors(folder / f"W_dec_{i}.safetensors"), i)
  pattern: dict[str, tuple[str | int, ...]] = {
    "W_enc": ("m", "d"),
    "b_enc": ("m",),
    "b_dec": ("e",),
    "W_dec": ("m", count - i, "e"),
  }
  if "threshold" in tensors:
    pattern["threshold"] = ("m",)
  check_shapes(tensors, pattern, path)
  return LayerPart(
    w_enc=named(tensors["W_enc"].T, axes.INPUT, axes.LATENTS),
    b_enc=named(tensors["b_enc"], axes.LATENTS),
    w_dec=named(tensors["W_dec"], axes.LATENTS, axes.LAYER, axes.OUTPUT),
    b_dec=named(tensors["b_dec"], axes.OUTPUT),
    activation=_activation(tensors.get("threshold"), path),
  )


def _renamed(tensors: Tensors, i: int) -> dict[str, np.ndarray]:
  return {n.removesuffix(f"_{i}"): t for n, t in tensors.items()}


def _activation(threshold: np.ndarray | None, path: pathlib.Path) -> Activation:
  if threshold is None:
    return Relu()
  if (threshold < 0).any():
    raise ConfigError(
      "circuit-tracer lets negative values pass a negative threshold.",
      received=f"{path}: thresholds down to {float(threshold.min()):.3g}",
      instead="a dictionary with thresholds of at least zero",
    )
  return JumpRelu(named(threshold, axes.LATENTS))


def _sites(
  config: dict[str, Any], layers: Sequence[int] | range
) -> tuple[tuple[Site, ...], tuple[Site, ...]]:
  ends = []
  for key in ("feature_input_hook", "feature_output_hook"):
    hook = str(config.get(key, ""))
    if hook in HOOKS:
      ends.append(tuple(Site(HOOKS[hook], i) for i in layers))
    elif hook:
      ends.append(
        tuple(site_aliases.alias_to_site(f"blocks.{i}.{hook}") for i in layers)
      )
    else:
      raise SiteError(
        "The configuration does not say where the dictionaries belong.",
        received=f"config.yaml without {key}",
        instead='feature_input_hook: "mlp.hook_in" and feature_output_hook: '
        '"hook_mlp_out", as for Gemma Scope 2',
      )
  return ends[0], ends[1]


def _model(config: dict[str, Any]) -> str | None:
  return model_name(config.get("model_name"))
