"""Small random models with the shape of each Gemma 3 size.

The weights come from a seed, so that only results are stored; `fingerprint`
tells a changed generator from a wrong model. Needs NumPy alone: the script
that makes the goldens and the test that reads them both import this file.
"""

import dataclasses
import json

import numpy as np


@dataclasses.dataclass(frozen=True)
class Shape:
  """A small model: fields as in gemma_scope.model.config.GemmaConfig."""

  num_layers: int
  num_heads: int
  num_kv_heads: int
  head_dim: int
  query_scalar: float
  rope_factor: float
  d_model: int = 64
  d_ff: int = 96
  vocab_size: int = 512
  window: int = 16


# Heads and RoPE factors are the published ones, and so is the head width of
# the largest, whose score scale is not its head width. No depth is a multiple
# of the period of 6.
SHAPES = {
  "270m": Shape(7, 4, 1, 32, 32.0, 1.0),
  "1b": Shape(14, 4, 1, 32, 32.0, 1.0),
  "4b": Shape(10, 8, 4, 32, 32.0, 8.0),
  "12b": Shape(8, 16, 8, 32, 32.0, 8.0),
  "27b": Shape(8, 32, 16, 128, 168.0, 8.0),
}
LENGTHS = (40, 27)


def _layer_shapes(shape: Shape) -> dict[str, tuple[int, ...]]:
  n, k, h = shape.num_heads, shape.num_kv_heads, shape.head_dim
  d, f = shape.d_model, shape.d_ff
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


def tensor_shapes(shape: Shape) -> dict[str, tuple[int, ...]]:
  """Canonical (official Flax) name -> shape, in the order of generation."""
  names = {"embedder/input_embedding": (shape.vocab_size, shape.d_model)}
  for i in range(shape.num_layers):
    for name, size in _layer_shapes(shape).items():
      names[f"layer_{i}/{name}"] = size
  return names | {"final_norm/scale": (shape.d_model,)}


def weights(name: str) -> dict[str, np.ndarray]:
  """Canonical name -> float32 tensor of the model `name` of SHAPES.

  Every value is a float16 number, so that the last bits of a platform's
  mathematical functions cannot change it.
  """
  shape = SHAPES[name]
  rng = np.random.default_rng([20250312, list(SHAPES).index(name)])
  tensors = {}
  for key, size in tensor_shapes(shape).items():
    value = rng.standard_normal(size)
    if key.endswith(("_query_norm/scale", "_key_norm/scale")):
      # Gains above one: attention that is far from uniform.
      value = 0.3 + 0.3 * value
    elif "/post_" in key:
      # Writes smaller than the stream, as in trained models: otherwise a
      # random network amplifies rounding errors from layer to layer.
      value = -0.6 + 0.2 * value
    elif key.endswith("scale"):
      value = 0.3 * value
    else:
      value = value / np.sqrt(shape.d_model)
    tensors[key] = value.astype(np.float16).astype(np.float32)
  return tensors


def inputs(name: str) -> tuple[np.ndarray, np.ndarray]:
  """(tokens, mask), both [2, 40] int64: one full row, one padded behind."""
  rng = np.random.default_rng([20250313, list(SHAPES).index(name)])
  size = (len(LENGTHS), max(LENGTHS))
  mask = (np.arange(size[1]) < np.array(LENGTHS)[:, None]).astype(np.int64)
  tokens = rng.integers(4, SHAPES[name].vocab_size, size)
  tokens[:, 0] = 2
  return tokens * mask, mask


def fingerprint(tensors: dict[str, np.ndarray]) -> str:
  """JSON of the tensors' count and sums: equal if the weights are."""
  exact = [value.astype(np.float64) for value in tensors.values()]
  sums = [float(value.sum()) for value in exact]
  absolute = [float(np.abs(value).sum()) for value in exact]
  return json.dumps([len(exact), round(sum(sums), 3), round(sum(absolute), 3)])
