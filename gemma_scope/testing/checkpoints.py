"""Tiny checkpoints in the layouts that are met in the wild.

Each maker takes canonical arrays and writes one container of them, with code
that shares nothing with the readers it is there to test. Needs no network.
"""

from collections.abc import Mapping
import json
import os
import pathlib
from typing import Any

import numpy as np
import safetensors.numpy

from gemma_scope.weights import checkpoint

Tensors = Mapping[str, np.ndarray]

_NORMS = {
  "pre_attention_norm/scale": "input_layernorm",
  "attn/_query_norm/scale": "self_attn.q_norm",
  "attn/_key_norm/scale": "self_attn.k_norm",
  "post_attention_norm/scale": "post_attention_layernorm",
  "pre_ffw_norm/scale": "pre_feedforward_layernorm",
  "post_ffw_norm/scale": "post_feedforward_layernorm",
}


def tiny_sizes(num_layers: int = 2) -> checkpoint.Sizes:
  """Grouped heads, and no two sizes alike, so that a swap shows."""
  return checkpoint.Sizes(
    num_layers=num_layers,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    d_model=64,
    d_ff=96,
    vocabulary=160,
  )


def random_arrays(
  sizes: checkpoint.Sizes, *, seed: int = 0, dtype: Any = np.float32
) -> dict[str, np.ndarray]:
  """Canonical arrays of small normal numbers.

  Args:
    sizes: Their shapes.
    seed: Of the generator.
    dtype: Of the arrays.
  """
  rng = np.random.default_rng(seed)
  return {
    name: (0.1 * rng.standard_normal(shape)).astype(dtype)
    for name, shape in checkpoint.canonical_shapes(sizes).items()
  }


def hugging_face_matrices(tensors: Tensors) -> dict[str, np.ndarray]:
  """Canonical arrays as [out, in] matrices under bare Hugging Face names."""
  found = {
    "embed_tokens.weight": tensors["embedder/input_embedding"],
    "norm.weight": tensors["final_norm/scale"],
  }
  for i in range(checkpoint.num_layers(tensors)):
    layer = f"layer_{i}/"
    q = tensors[layer + "attn/q_einsum/w"]
    k, v = tensors[layer + "attn/kv_einsum/w"]
    o = tensors[layer + "attn/attn_vec_einsum/w"]
    gate, up = tensors[layer + "mlp/gating_einsum"]
    d = q.shape[1]
    parts = {
      # W[n * H + h, d] = w[n, d, h]
      "self_attn.q_proj": np.swapaxes(q, 1, 2).reshape(-1, d),
      "self_attn.k_proj": np.swapaxes(k, 1, 2).reshape(-1, d),
      "self_attn.v_proj": np.swapaxes(v, 1, 2).reshape(-1, d),
      # W[d, n * H + h] = w[n, h, d]
      "self_attn.o_proj": np.moveaxis(o, 2, 0).reshape(d, -1),
      "mlp.gate_proj": gate,
      "mlp.up_proj": up,
      "mlp.down_proj": tensors[layer + "mlp/linear"].T,
    }
    parts |= {new: tensors[layer + old] for old, new in _NORMS.items()}
    found |= {f"layers.{i}.{n}.weight": part for n, part in parts.items()}
  return {n: np.ascontiguousarray(a) for n, a in found.items()}


def write_safetensors(
  folder: str | os.PathLike,
  tensors: Tensors,
  *,
  prefix: str = "model.",
  shards: int = 1,
  multimodal: bool = False,
) -> pathlib.Path:
  """Writes a Hugging Face folder: weights, index if sharded, config.json.

  Args:
    folder: Where; it is made.
    tensors: Canonical name -> array.
    prefix: In front of every name; empty for none.
    shards: Into how many files.
    multimodal: Add vision tensors and pad the vocabulary by 64 rows.
  """
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  named = {
    prefix + name: matrix
    for name, matrix in hugging_face_matrices(tensors).items()
  }
  config: dict[str, Any] = {
    "num_hidden_layers": checkpoint.num_layers(tensors),
    "tie_word_embeddings": True,
  }
  if multimodal:
    table = named[prefix + "embed_tokens.weight"]
    padded = np.concatenate([table, np.ones((64, table.shape[1]), table.dtype)])
    named[prefix + "embed_tokens.weight"] = padded
    named["lm_head.weight"] = padded
    outer = "model." if prefix.startswith("model.") else ""
    named[f"{outer}vision_tower.encoder.weight"] = np.ones((3, 3), np.float32)
    named[f"{outer}multi_modal_projector.mm_input_projection_weight"] = np.ones(
      (3, 5), np.float32
    )
    config = {"model_type": "gemma3", "text_config": config}
  else:
    config["model_type"] = "gemma3_text"
  (folder / "config.json").write_text(json.dumps(config))
  _write_shards(folder, named, shards)
  return folder


def _write_shards(folder: pathlib.Path, named: Tensors, shards: int) -> None:
  if shards == 1:
    safetensors.numpy.save_file(dict(named), folder / "model.safetensors")
    return
  weight_map = {}
  for shard in range(shards):
    file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
    part = {n: named[n] for n in list(named)[shard::shards]}
    safetensors.numpy.save_file(part, folder / file)
    weight_map |= dict.fromkeys(part, file)
  (folder / "model.safetensors.index.json").write_text(
    json.dumps({"metadata": {}, "weight_map": weight_map})
  )


def write_orbax_container(
  path: str | os.PathLike,
  tensors: Tensors,
  container: str = "nested",
  *,
  multimodal: bool = False,
) -> pathlib.Path:
  """Saves an Orbax checkpoint in one of the containers that are met.

  Args:
    path: A folder that does not exist yet.
    tensors: Canonical name -> array.
    container: "nested", "flat", "stacked" or "state".
    multimodal: Add vision arrays.
  """
  import orbax.checkpoint as ocp

  make = {
    "nested": _nested,
    "flat": _flat,
    "stacked": _stacked,
    "state": _state,
  }[container]
  tree = make(dict(tensors))
  if multimodal:
    extra = np.ones((2, 2), np.float32)
    if container in ("nested", "state"):
      inner = tree["params"] if container == "state" else tree
      inner["vision_encoder"] = {"siglip": {"kernel": extra}}
      inner["embedder"]["mm_input_projection"] = {"w": extra}
    else:
      tree["SigLiPFromPatches_0/siglip"] = {"kernel": extra}
      tree["transformer/embedder/mm_input_projection"] = {"w": extra}
  path = pathlib.Path(path).absolute()
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(path, tree)
    checkpointer.wait_until_finished()
  return path


def _nested(tensors: Tensors) -> dict[str, Any]:
  tree: dict[str, Any] = {}
  for name, array in tensors.items():
    node = tree
    *parts, leaf = name.split("/")
    for part in parts:
      node = node.setdefault(part, {})
    node[leaf] = array
  return tree


def _flat(tensors: Tensors) -> dict[str, Any]:
  """{"transformer/layer_0/mlp/linear": {"w": array}, …}, as published."""
  tree: dict[str, Any] = {}
  for name, array in tensors.items():
    full = f"{name}/w" if "/mlp/" in name else name
    place, leaf = full.rsplit("/", 1)
    tree.setdefault(f"transformer/{place}", {})[leaf] = array
  return tree


def _stacked(tensors: Tensors, period: int = 6) -> dict[str, Any]:
  """Layers of one place in the period along a leading axis."""
  rows: dict[str, dict[int, np.ndarray]] = {}
  outer = {}
  for name, array in tensors.items():
    layer, _, rest = name.partition("/")
    if not layer.startswith("layer_"):
      outer[name] = array
      continue
    index = int(layer.removeprefix("layer_"))
    key = f"stacked_layers/attention_type_{index % period}/{rest}"
    rows.setdefault(key, {})[index // period] = array
  stacks = {
    key: np.stack([row[i] for i in sorted(row)]) for key, row in rows.items()
  }
  return _flat(outer | stacks)


def _state(tensors: Tensors) -> dict[str, Any]:
  return {
    "params": _nested(tensors),
    "opt_state": [{"mu": np.zeros(3, np.float32)}, np.int32(1)],
    "collections": {},
    "step": np.int32(7),
  }
