"""A GGUF file as a checkpoint: names and layout mapped, data unpacked lazily.

llama.cpp's converter adds 1 to every norm scale of Gemma 3; it is subtracted
here, in float32. Queries and keys are not permuted. Vision projectors
("mmproj" files) are refused.
"""

from collections.abc import Mapping
import functools
import os
import re

import numpy as np

from gemma_scope import errors
from gemma_scope.weights import checkpoint, gguf, layout, quantization

_ARCHITECTURE = "gemma3"
_NAMES = {
  "attn_norm": "input_layernorm",
  "attn_q": "self_attn.q_proj",
  "attn_q_norm": "self_attn.q_norm",
  "attn_k": "self_attn.k_proj",
  "attn_k_norm": "self_attn.k_norm",
  "attn_v": "self_attn.v_proj",
  "attn_output": "self_attn.o_proj",
  "post_attention_norm": "post_attention_layernorm",
  "ffn_norm": "pre_feedforward_layernorm",
  "ffn_gate": "mlp.gate_proj",
  "ffn_up": "mlp.up_proj",
  "ffn_down": "mlp.down_proj",
  "post_ffw_norm": "post_feedforward_layernorm",
}
_WHOLE_NAMES = {
  "token_embd.weight": layout.EMBED_TOKENS,
  "output_norm.weight": "norm.weight",
}


def open_gguf(path: str | os.PathLike) -> checkpoint.Checkpoint:
  """Opens a Gemma 3 GGUF file; reads its header only.

  Args:
    path: A local file.

  Returns:
    A checkpoint of float32 tensors (unquantised F16 and BF16 matrices keep
    their dtype); the tokenizer is the same file.

  Raises:
    CheckpointError: not GGUF, not Gemma 3's text model, cut off, corrupt, or
      packed in a way that cannot be read.
  """
  return header_to_checkpoint(gguf.read_header(path))


def header_to_checkpoint(header: gguf.GgufHeader) -> checkpoint.Checkpoint:
  """What `open_gguf` does once the header is read; raises the same."""
  _check_architecture(header)
  _check_split(header)
  matrices = {}
  for row in header.tensors.values():
    name = _hugging_face_name(row.name)
    if name is not None:
      matrices[name] = _lazy(header, row)
  tensors = layout.matrices_to_canonical(matrices, header.path)
  _check_layers(header, tensors)
  return checkpoint.Checkpoint(
    tensors=tensors,
    source=header.path,
    format="gguf",
    tokenizer=header.path,
  )


def is_quantized(header: gguf.GgufHeader) -> bool:
  """Whether reading any tensor costs more than mapping it.

  Args:
    header: Of a file that `header_to_checkpoint` takes.
  """
  types = {row.type_id for row in header.tensors.values()}
  return any(quantization.ENCODINGS[t].plain is None for t in types)


def _check_architecture(header: gguf.GgufHeader) -> None:
  found = header.metadata.get("general.architecture")
  if found == _ARCHITECTURE:
    return
  if found == "clip":
    raise errors.CheckpointError(
      "This GGUF file holds an image encoder, not the text model.",
      received=header.path,
      instead="the text model's GGUF; images are not supported",
    )
  raise errors.CheckpointError(
    "This GGUF file holds another architecture.",
    received=f"{header.path}: {found!r}",
    instead=f"a GGUF file of {_ARCHITECTURE!r}",
  )


def _check_split(header: gguf.GgufHeader) -> None:
  files = header.metadata.get("split.count", 0)
  if isinstance(files, int) and files > 1:
    raise errors.CheckpointError(
      "The GGUF file is one of several that belong together.",
      received=f"{header.path}: one of {files}",
      instead="one file; `llama-gguf-split --merge` joins them",
    )


def _check_layers(
  header: gguf.GgufHeader, tensors: Mapping[str, checkpoint.LazyTensor]
) -> None:
  promised = header.metadata.get(f"{_ARCHITECTURE}.block_count")
  found = checkpoint.num_layers(tensors)
  if promised is not None and promised != found:
    raise errors.CheckpointError(
      "The file holds fewer or more layers than its header says.",
      received=f"{header.path}: {found} layers, header says {promised}",
      instead="the complete file; download it again",
    )


def _hugging_face_name(name: str) -> str | None:
  """Names of the text model; None for a tensor the text model does not use.

  The output matrix of a tied model repeats the embedding, and rope factors
  are constants of the architecture.
  """
  if name in _WHOLE_NAMES:
    return _WHOLE_NAMES[name]
  if name in ("output.weight", "rope_freqs.weight"):
    return None
  match = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name)
  if match is None or match[2] not in _NAMES:
    return name
  return f"layers.{match[1]}.{_NAMES[match[2]]}.weight"


def _lazy(
  header: gguf.GgufHeader, row: gguf.GgufTensor
) -> checkpoint.LazyTensor:
  encoding = quantization.ENCODINGS.get(row.type_id)
  if encoding is None:
    known = ", ".join(e.name for e in quantization.ENCODINGS.values())
    raise errors.CheckpointError(
      "A tensor is packed in a way that cannot be read.",
      received=f"{header.path}: {row.name} has type {row.type_id}",
      instead=f"a GGUF file of {known} tensors (Q4_K_M, Q5_K_M, Q8_0 …)",
    )
  nbytes = encoding.nbytes(row.shape)
  if row.offset + nbytes > header.file_bytes:
    raise errors.CheckpointError(
      "The GGUF file is cut off.",
      received=f"{header.path}: {header.file_bytes:,} bytes, {row.name} ends "
      f"at {row.offset + nbytes:,}",
      instead="the complete file; download it again",
    )
  is_norm = row.name.endswith("norm.weight")
  dtype = None if is_norm else encoding.plain
  return checkpoint.LazyTensor(
    row.shape,
    dtype or np.dtype(np.float32),
    functools.partial(_read, header.path, row, encoding, is_norm),
  )


def _read(
  path: str,
  row: gguf.GgufTensor,
  encoding: quantization.Encoding,
  is_norm: bool,
) -> np.ndarray:
  nbytes = encoding.nbytes(row.shape)
  data = np.memmap(path, np.uint8, "r", row.offset, (nbytes,))
  if is_norm:
    return quantization.dequantize(data, encoding, row.shape) - np.float32(1)
  if encoding.plain is not None:
    return data.view(encoding.plain).reshape(row.shape)
  return quantization.dequantize(data, encoding, row.shape)
