"""What every reader returns: the text tensors of Gemma 3, canonically named.

The canonical names and shapes are those of the official Flax checkpoints, flat
with `/` between the parts. N query heads, K key/value heads, H head width,
D d_model, F d_ff, V vocabulary; norm scales are stored without their +1:

    embedder/input_embedding               [V, D]
    layer_{i}/pre_attention_norm/scale     [D]
    layer_{i}/attn/q_einsum/w              [N, D, H]
    layer_{i}/attn/kv_einsum/w             [2, K, D, H]   0 = key, 1 = value
    layer_{i}/attn/_query_norm/scale       [H]
    layer_{i}/attn/_key_norm/scale         [H]
    layer_{i}/attn/attn_vec_einsum/w       [N, H, D]
    layer_{i}/post_attention_norm/scale    [D]
    layer_{i}/pre_ffw_norm/scale           [D]
    layer_{i}/mlp/gating_einsum            [2, F, D]      0 = gate, 1 = up
    layer_{i}/mlp/linear                   [F, D]
    layer_{i}/post_ffw_norm/scale          [D]
    final_norm/scale                       [D]

A reader opens lazily: shapes are known at once, values are read on demand.
"""

from collections.abc import Callable, Mapping
import dataclasses
import re

import numpy as np


@dataclasses.dataclass(frozen=True)
class LazyTensor:
  """One tensor of a checkpoint, not read yet.

  Attributes:
    shape: Its canonical shape.
    dtype: The dtype that `read` returns (float32, float16 or bfloat16).
    read: Reads the whole tensor; a view of a mapped file where that can be.
  """

  shape: tuple[int, ...]
  dtype: np.dtype
  read: Callable[[], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  """The text part of one Gemma 3 checkpoint, opened and not read yet.

  Attributes:
    tensors: Canonical name -> lazy tensor; complete and shape-consistent.
    source: Where it came from, for the manifest (path, repository, package).
    format: "gguf", "safetensors" or "orbax".
    tokenizer: The file the tokenizer is read from (.gguf, tokenizer.model or
      tokenizer.json), or None where the checkpoint brings none.
  """

  tensors: Mapping[str, LazyTensor]
  source: str
  format: str
  tokenizer: str | None = None


def layer_shapes(
  num_heads: int, num_kv_heads: int, head_dim: int, d_model: int, d_ff: int
) -> dict[str, tuple[int, ...]]:
  """Canonical shapes of one decoder layer, keyed without `layer_{i}/`."""
  n, k, h, d, f = num_heads, num_kv_heads, head_dim, d_model, d_ff
  return {
    "pre_attention_norm/scale": (d,),
    "attn/q_einsum/w": (n, d, h),
    "attn/kv_einsum/w": (2, k, d, h),
    "attn/_query_norm/scale": (h,),
    "attn/_key_norm/scale": (h,),
    "attn/attn_vec_einsum/w": (n, h, d),
    "post_attention_norm/scale": (d,),
    "pre_ffw_norm/scale": (d,),
    "mlp/gating_einsum": (2, f, d),
    "mlp/linear": (f, d),
    "post_ffw_norm/scale": (d,),
  }


def num_layers(names: Mapping[str, object]) -> int:
  """The number of decoder layers that canonical names speak of."""
  found = {m[1] for n in names if (m := re.match(r"layer_(\d+)/", n))}
  return len(found)
