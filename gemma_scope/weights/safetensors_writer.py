"""Canonical tensors -> a folder that Hugging Face transformers opens.

Writes config.json and one safetensors file, or shards with an index, in the
dtypes it is given; `Gemma3ForCausalLM.from_pretrained(folder)` then loads it.
The folder appears whole or not at all. It writes no tokenizer of its own: an
existing tokenizer file is copied.
"""

from collections.abc import Iterator, Mapping
import json
import os
import pathlib
import shutil

import numpy as np

from gemma_scope.weights import (
  checkpoint,
  folders,
  layout,
  safetensors_file,
  safetensors_hf,
)

_PREFIX = "model."
_PERIOD = 6
_Spec = tuple[tuple[int, ...], np.dtype]


def hugging_face_config(
  sizes: checkpoint.Sizes,
  *,
  query_scalar: float,
  window: int,
  rope_factor: float,
  max_context: int,
) -> dict[str, object]:
  """The config.json of a Gemma 3 text model, readable by transformers 4 and 5.

  Args:
    sizes: What the shapes say.
    query_scalar: s of the score scale s ** -0.5.
    window: Tokens that a local layer sees, itself included.
    rope_factor: Linear position scaling of the global layers; 1 for none.
    max_context: Positions the model was trained for.
  """
  scaling = {"rope_type": "linear", "factor": float(rope_factor)}
  return {
    "architectures": ["Gemma3ForCausalLM"],
    "model_type": "gemma3_text",
    "vocab_size": sizes.vocabulary,
    "hidden_size": sizes.d_model,
    "intermediate_size": sizes.d_ff,
    "num_hidden_layers": sizes.num_layers,
    "num_attention_heads": sizes.num_heads,
    "num_key_value_heads": sizes.num_kv_heads,
    "head_dim": sizes.head_dim,
    "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": max_context,
    "query_pre_attn_scalar": int(query_scalar),
    "rms_norm_eps": 1e-6,
    "rope_theta": 1_000_000.0,
    "rope_local_base_freq": 10_000.0,
    "rope_scaling": None if rope_factor == 1 else scaling,
    "sliding_window": window,
    "sliding_window_pattern": _PERIOD,
    "attention_bias": False,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "tie_word_embeddings": True,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "pad_token_id": 0,
  }


def write_hugging_face(
  folder: str | os.PathLike,
  tensors: Mapping[str, checkpoint.Tensor],
  config: Mapping[str, object],
  *,
  max_shard_bytes: int = 5_000_000_000,
  tokenizer: str | os.PathLike | None = None,
) -> pathlib.Path:
  """Writes a Hugging Face folder.

  Args:
    folder: Where; must not exist, or be empty.
    tensors: Canonical name -> array (NumPy, JAX or lazy); read one at a time.
    config: config.json, see `hugging_face_config`.
    max_shard_bytes: Tensors that would make a file longer go to the next one.
    tokenizer: A tokenizer.model or tokenizer.json to copy beside the weights.

  Returns:
    The folder.

  Raises:
    CheckpointError: a tensor is missing or misshapen, or the folder exists.
  """
  checkpoint.check_complete(tensors, "the tensors to write")
  shards = _plan(tensors, max_shard_bytes)
  with folders.new_folder(folder) as made:
    names = _file_names(len(shards))
    for name, shard in zip(names, shards, strict=True):
      _write_shard(made / name, shard, tensors)
    if len(shards) > 1:
      _write_json(made / safetensors_hf.INDEX, _index(shards, names))
    dtype = np.dtype(tensors[checkpoint.EMBEDDING].dtype).name
    _write_json(made / "config.json", {**config, "torch_dtype": dtype})
    if tokenizer is not None:
      shutil.copy(tokenizer, made)
  return pathlib.Path(folder)


# A shard: canonical name -> the matrices it is split into.
_Shard = dict[str, dict[str, _Spec]]


def _plan(tensors: Mapping[str, checkpoint.Tensor], most: int) -> list[_Shard]:
  """Which tensor goes into which file, in the order of the forward pass."""
  sizes = checkpoint.infer_sizes(tensors, "the tensors to write")
  shards: list[_Shard] = [{}]
  filled = 0
  for canonical, shape in checkpoint.canonical_shapes(sizes).items():
    dtype = np.dtype(tensors[canonical].dtype)
    nbytes = int(np.prod(shape)) * dtype.itemsize
    if shards[-1] and filled + nbytes > most:
      shards.append({})
      filled = 0
    filled += nbytes
    shards[-1][canonical] = {
      _PREFIX + name: (part_shape, dtype)
      for name, part_shape in layout.matrix_shapes(canonical, shape).items()
    }
  return shards


def _file_names(count: int) -> list[str]:
  if count == 1:
    return ["model.safetensors"]
  return [f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]


def _index(shards: list[_Shard], names: list[str]) -> dict[str, object]:
  weight_map, total = {}, 0
  for shard, file in zip(shards, names, strict=True):
    for specs in shard.values():
      for name, (shape, dtype) in specs.items():
        weight_map[name] = file
        total += int(np.prod(shape)) * dtype.itemsize
  return {"metadata": {"total_size": total}, "weight_map": weight_map}


def _write_shard(
  path: pathlib.Path,
  shard: _Shard,
  tensors: Mapping[str, checkpoint.Tensor],
) -> None:
  specs = {n: spec for part in shard.values() for n, spec in part.items()}
  with folders.new_file(path) as file:
    safetensors_file.write(
      file, specs, _matrices(shard, tensors), {"format": "pt"}
    )


def _matrices(
  shard: _Shard, tensors: Mapping[str, checkpoint.Tensor]
) -> Iterator[np.ndarray]:
  for canonical in shard:
    array = checkpoint.read(tensors[canonical])
    yield from layout.canonical_to_matrices({canonical: array}).values()


def _write_json(path: pathlib.Path, content: Mapping[str, object]) -> None:
  with folders.new_file(path) as file:
    file.write(json.dumps(content, indent=2).encode() + b"\n")
