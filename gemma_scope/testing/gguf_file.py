"""Tiny GGUF files, as llama.cpp's converter lays Gemma 3 out.

Norm scales get their +1, matrices are [out, in], queries and keys are not
permuted. Two quantisers are here (Q8_0, Q4_0), the simplest there are; blocks
of the other types are tested with goldens.
"""

from collections.abc import Mapping
import io
import os
import pathlib
import struct
from typing import Any

import ml_dtypes
import numpy as np

from gemma_scope.testing import checkpoints
from gemma_scope.weights import checkpoint

_NAMES = {
  "embed_tokens": "token_embd",
  "input_layernorm": "attn_norm",
  "self_attn.q_proj": "attn_q",
  "self_attn.q_norm": "attn_q_norm",
  "self_attn.k_proj": "attn_k",
  "self_attn.k_norm": "attn_k_norm",
  "self_attn.v_proj": "attn_v",
  "self_attn.o_proj": "attn_output",
  "post_attention_layernorm": "post_attention_norm",
  "pre_feedforward_layernorm": "ffn_norm",
  "mlp.gate_proj": "ffn_gate",
  "mlp.up_proj": "ffn_up",
  "mlp.down_proj": "ffn_down",
  "post_feedforward_layernorm": "post_ffw_norm",
  "norm": "output_norm",
}
_TYPE_IDS = {"F32": 0, "F16": 1, "Q4_0": 2, "Q8_0": 8, "BF16": 30}


def write_gguf(
  path: str | os.PathLike,
  tensors: checkpoints.Tensors,
  *,
  encoding: str = "F32",
  metadata: Mapping[str, Any] | None = None,
) -> pathlib.Path:
  """Writes a GGUF file of canonical arrays.

  Args:
    path: The file.
    tensors: Canonical name -> array.
    encoding: "F32", "F16", "BF16", "Q8_0" or "Q4_0" for the matrices; norms
      are always F32.
    metadata: Keys to add or replace: int, float, bool, str, lists of strings,
      numpy arrays of int32 or float32.
  """
  facts: dict[str, Any] = {
    "general.architecture": "gemma3",
    "gemma3.block_count": checkpoint.num_layers(tensors),
    "gemma3.embedding_length": tensors["final_norm/scale"].shape[0],
    **(metadata or {}),
  }
  rows = []
  for name, matrix in checkpoints.hugging_face_matrices(tensors).items():
    values = matrix.astype(np.float32)
    if matrix.ndim == 1:
      rows.append((gguf_name(name), values.shape, "F32", values + 1))
    else:
      rows.append((gguf_name(name), values.shape, encoding, values))
  path = pathlib.Path(path)
  path.write_bytes(_file(facts, rows))
  return path


def gguf_name(name: str) -> str:
  """A bare Hugging Face name -> GGUF's."""
  bare = name.removesuffix(".weight")
  if bare in _NAMES:
    return f"{_NAMES[bare]}.weight"
  _, layer, part = bare.split(".", 2)
  return f"blk.{layer}.{_NAMES[part]}.weight"


def quantize(values: np.ndarray, encoding: str) -> bytes:
  """Packs float32 rows, to the nearest of each block's steps.

  Args:
    values: Rows of a multiple of 32 numbers for Q8_0 and Q4_0.
    encoding: One of those of `write_gguf`.
  """
  if encoding == "F32":
    return values.astype("<f4").tobytes()
  if encoding == "F16":
    return values.astype("<f2").tobytes()
  if encoding == "BF16":
    return values.astype(ml_dtypes.bfloat16).tobytes()
  blocks = values.reshape(-1, 32)
  most = {"Q8_0": 127, "Q4_0": 7}[encoding]
  scale = np.abs(blocks).max(1, keepdims=True) / most
  half = scale.astype("<f2")
  steps = np.divide(
    blocks, half, out=np.zeros_like(blocks), where=half != 0
  ).round()
  packed = steps.clip(-most - 1, most).astype(np.int8)
  if encoding == "Q4_0":
    nibbles = (packed + 8).astype(np.uint8)
    packed = nibbles[:, :16] | (nibbles[:, 16:] << 4)
  raw = np.concatenate([half.view(np.uint8), packed.view(np.uint8)], axis=1)
  return raw.tobytes()


def _file(facts: Mapping[str, Any], rows: list) -> bytes:
  out, data = io.BytesIO(), io.BytesIO()
  out.write(struct.pack("<4sIQQ", b"GGUF", 3, len(rows), len(facts)))
  for key, value in facts.items():
    out.write(_string(key) + _typed(value))
  for name, shape, encoding, values in rows:
    data.write(b"\0" * (-data.tell() % 32))
    out.write(_string(name) + struct.pack("<I", len(shape)))
    out.write(struct.pack(f"<{len(shape)}Q", *reversed(shape)))
    out.write(struct.pack("<IQ", _TYPE_IDS[encoding], data.tell()))
    data.write(quantize(values, encoding))
  out.write(b"\0" * (-out.tell() % 32))
  return out.getvalue() + data.getvalue()


def _string(text: str) -> bytes:
  raw = text.encode()
  return struct.pack("<Q", len(raw)) + raw


def _typed(value: Any) -> bytes:
  """A value with its type id in front."""
  if isinstance(value, bool):
    return struct.pack("<I?", 7, value)
  if isinstance(value, int):
    return struct.pack("<II", 4, value)
  if isinstance(value, float):
    return struct.pack("<If", 6, value)
  if isinstance(value, str):
    return struct.pack("<I", 8) + _string(value)
  if isinstance(value, np.ndarray):
    element = {"<i4": 5, "<f4": 6}[value.dtype.str]
    return struct.pack("<IIQ", 9, element, value.size) + value.tobytes()
  texts = b"".join(_string(text) for text in value)
  return struct.pack("<IIQ", 9, 8, len(value)) + texts
