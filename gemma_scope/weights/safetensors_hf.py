"""A Hugging Face folder (or one safetensors file) as a checkpoint.

Takes one file or shards with an index, any of the three prefixes that are met
in published files, and multimodal checkpoints: their vision tensors are
skipped, their padded vocabulary is cut. Does not read PyTorch pickles, LoRA
adapters or quantised weights.
"""

from collections.abc import Mapping
import json
import os
import pathlib

import numpy as np

from gemma_scope import errors
from gemma_scope.weights import (
  checkpoint,
  layout,
  safetensors_file,
  tokenizer_files,
)

INDEX = "model.safetensors.index.json"
_ARCHITECTURES = ("gemma3_text", "gemma3")
# Longest first: "model." is also the start of the third.
_PREFIXES = ("language_model.model.", "model.language_model.", "model.")
_NOT_TEXT = (
  "vision_tower.",
  "multi_modal_projector.",
  "model.vision_tower.",
  "model.multi_modal_projector.",
)
_OUTPUTS = ("lm_head.weight", "language_model.lm_head.weight")


def open_hugging_face(path: str | os.PathLike) -> checkpoint.Checkpoint:
  """Opens a folder or file of safetensors; reads headers only.

  Args:
    path: A folder with model.safetensors or shards and their index, or one
      safetensors file.

  Returns:
    A checkpoint of mapped tensors in the dtypes of the files.

  Raises:
    CheckpointError: another architecture, a missing shard or tensor, an untied
      output matrix, or a damaged file.
  """
  path = pathlib.Path(path)
  folder = path.parent if path.is_file() else path
  config = _read_config(folder)
  stored = _stored_tensors(path)
  _check_tied(stored, config, str(path))
  matrices = {}
  for name, tensor in stored.items():
    if (bare := _without_prefix(name)) is not None:
      matrices[bare] = tensor
  tensors = layout.matrices_to_canonical(matrices, str(path))
  _check_layers(tensors, config, str(path))
  return checkpoint.Checkpoint(
    tensors=tensors,
    source=str(path),
    format="safetensors",
    tokenizer=tokenizer_files.find_tokenizer(folder),
  )


def weight_files(folder: str | os.PathLike) -> list[pathlib.Path]:
  """The safetensors files of a folder, missing shards of its index included.

  Raises:
    CheckpointError: the index cannot be read.
  """
  folder = pathlib.Path(folder)
  if (folder / INDEX).is_file():
    return [folder / name for name in sorted(set(_shards(folder).values()))]
  found = sorted(folder.glob("*.safetensors"))
  return [f for f in found if not f.name.startswith("adapter_")]


def _shards(folder: pathlib.Path) -> dict[str, str]:
  """Tensor name -> file name, from the folder's index."""
  try:
    weight_map = json.loads((folder / INDEX).read_bytes())["weight_map"]
    return {str(name): str(file) for name, file in weight_map.items()}
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise errors.CheckpointError(
      "The index of the shards cannot be read.",
      received=f"{folder / INDEX}: {error!r}",
      instead="download the index again",
    ) from error


def _stored_tensors(path: pathlib.Path) -> dict[str, checkpoint.LazyTensor]:
  """Every text tensor of the file or folder under its stored name."""
  files = [path] if path.is_file() else weight_files(path)
  missing = [file.name for file in files if not file.is_file()]
  if missing or not files:
    raise errors.CheckpointError(
      "The folder lacks files that hold weights.",
      received=f"{path}: missing {', '.join(missing) or '*.safetensors'}",
      instead="the whole checkpoint; download the missing files",
    )
  tensors = {}
  for file in files:
    header = safetensors_file.read_header(file)
    for name in header.slots:
      if not name.startswith(_NOT_TEXT):
        tensors[name] = safetensors_file.lazy_tensor(header, name)
  if path.is_dir() and (path / INDEX).is_file():
    promised = [n for n in _shards(path) if not n.startswith(_NOT_TEXT)]
    if lost := [name for name in promised if name not in tensors]:
      raise errors.CheckpointError(
        "A shard does not hold what the index says.",
        received=f"{path}: no {checkpoint.shortened(lost)}",
        instead="index and shards of one revision; download them again",
      )
  return tensors


def _without_prefix(name: str) -> str | None:
  """The bare name of a text tensor; None for one that is not needed."""
  if name in _OUTPUTS or name.endswith("rotary_emb.inv_freq"):
    return None
  for prefix in _PREFIXES:
    if name.startswith(prefix):
      return name.removeprefix(prefix)
  return name


def _read_config(folder: pathlib.Path) -> dict[str, object]:
  """The text part of config.json; empty where there is none."""
  path = folder / "config.json"
  if not path.is_file():
    return {}
  try:
    config = json.loads(path.read_bytes())
    architecture = config.get("model_type")
    config = {**config, **config.get("text_config", {})}
  except (ValueError, AttributeError, TypeError) as error:
    raise errors.CheckpointError(
      "The folder's config.json cannot be read.",
      received=f"{path}: {error}",
      instead="download config.json again",
    ) from error
  if architecture not in _ARCHITECTURES:
    raise errors.CheckpointError(
      "The folder holds another architecture.",
      received=f"{path}: model_type {architecture!r}",
      instead=f"a Gemma 3 checkpoint ({' or '.join(_ARCHITECTURES)})",
    )
  config.pop("text_config", None)
  return config


def _check_tied(
  stored: Mapping[str, checkpoint.LazyTensor],
  config: Mapping[str, object],
  source: str,
) -> None:
  """Refuses an output matrix that is not the embedding."""
  if config.get("tie_word_embeddings", True):
    return
  output = next((stored[n] for n in _OUTPUTS if n in stored), None)
  table = next((t for n, t in stored.items() if "embed_tokens" in n), None)
  if output is None or table is None:
    return
  if not np.array_equal(output.read(), table.read()):
    raise errors.CheckpointError(
      "The output matrix is not tied to the embedding.",
      received=f"{source}: tie_word_embeddings is false, lm_head differs",
      instead="a checkpoint with tied embeddings, as every Gemma 3 has",
    )


def _check_layers(
  tensors: Mapping[str, checkpoint.LazyTensor],
  config: Mapping[str, object],
  source: str,
) -> None:
  promised = config.get("num_hidden_layers")
  found = checkpoint.num_layers(tensors)
  if promised is not None and promised != found:
    raise errors.CheckpointError(
      "The checkpoint holds fewer or more layers than config.json says.",
      received=f"{source}: {found} layers, config.json says {promised}",
      instead="weights and config.json of one model",
    )
