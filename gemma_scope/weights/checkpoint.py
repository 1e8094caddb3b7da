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

from gemma_scope import errors

EMBEDDING = "embedder/input_embedding"
FINAL_NORM = "final_norm/scale"


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


Tensor = LazyTensor | np.ndarray


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


@dataclasses.dataclass(frozen=True)
class Sizes:
  """The numbers that fix every shape of a text checkpoint.

  Attributes:
    num_layers: Decoder layers.
    num_heads: Query heads, N.
    num_kv_heads: Key/value heads, K.
    head_dim: Width of one head, H.
    d_model: Width of the residual stream, D.
    d_ff: Hidden units of the feed-forward, F.
    vocabulary: Token ids, V.
  """

  num_layers: int
  num_heads: int
  num_kv_heads: int
  head_dim: int
  d_model: int
  d_ff: int
  vocabulary: int


def canonical_shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
  """Every canonical name with its shape, in the order of the forward pass."""
  layer = layer_shapes(
    sizes.num_heads,
    sizes.num_kv_heads,
    sizes.head_dim,
    sizes.d_model,
    sizes.d_ff,
  )
  shapes: dict[str, tuple[int, ...]] = {
    EMBEDDING: (sizes.vocabulary, sizes.d_model)
  }
  for index in range(sizes.num_layers):
    for name, shape in layer.items():
      shapes[f"layer_{index}/{name}"] = shape
  return shapes | {FINAL_NORM: (sizes.d_model,)}


def infer_sizes(tensors: Mapping[str, Tensor], source: str) -> Sizes:
  """Reads the sizes off the shapes of canonical tensors.

  Args:
    tensors: Canonical name -> anything with a `shape`.
    source: What to call the checkpoint in an error.

  Raises:
    CheckpointError: a tensor that fixes a size is missing or of another rank.
  """
  try:
    vocabulary, d_model = tensors[EMBEDDING].shape
    num_heads, _, head_dim = tensors["layer_0/attn/q_einsum/w"].shape
    _, num_kv_heads, _, _ = tensors["layer_0/attn/kv_einsum/w"].shape
    d_ff, _ = tensors["layer_0/mlp/linear"].shape
  except (KeyError, ValueError) as error:
    raise errors.CheckpointError(
      "This is no complete Gemma 3 text checkpoint.",
      received=f"{source}: no usable tensor for {error}",
      instead="a checkpoint with every tensor of a Gemma 3",
    ) from error
  return Sizes(
    num_layers=num_layers(tensors),
    num_heads=num_heads,
    num_kv_heads=num_kv_heads,
    head_dim=head_dim,
    d_model=d_model,
    d_ff=d_ff,
    vocabulary=vocabulary,
  )


def check_complete(tensors: Mapping[str, Tensor], source: str) -> Sizes:
  """Checks that every canonical tensor is there with a consistent shape.

  Args:
    tensors: Canonical name -> anything with a `shape`.
    source: What to call the checkpoint in an error.

  Returns:
    The sizes that the shapes agree on.

  Raises:
    CheckpointError: a tensor is missing, unknown, or of the wrong shape.
  """
  sizes = infer_sizes(tensors, source)
  expected = canonical_shapes(sizes)
  missing = [name for name in expected if name not in tensors]
  unknown = [name for name in tensors if name not in expected]
  if missing or unknown:
    raise errors.CheckpointError(
      "The checkpoint's tensors are not those of Gemma 3.",
      received=f"{source}: missing {shortened(missing)}; "
      f"unknown {shortened(unknown)}",
      instead="the complete checkpoint; a partial download looks like this",
    )
  for name, shape in expected.items():
    if tuple(tensors[name].shape) != shape:
      raise errors.CheckpointError(
        "A tensor's shape contradicts the others.",
        received=f"{source}: {name} is {tuple(tensors[name].shape)}",
        instead=f"{shape}, as the other shapes ask for; download it again",
      )
  return sizes


def shortened(names: list[str], most: int = 3) -> str:
  """A list of names short enough to read in an error."""
  if not names:
    return "none"
  rest = f" and {len(names) - most} more" if len(names) > most else ""
  return ", ".join(names[:most]) + rest


def read(tensor: Tensor) -> np.ndarray:
  """The values of a lazy tensor, or of an array (NumPy or JAX) as they are."""
  if isinstance(tensor, LazyTensor):
    return tensor.read()
  return np.asarray(tensor)
