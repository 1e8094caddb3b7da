"""The five sizes of Gemma 3, from one table.

Source: "Gemma 3 Technical Report" (2025), tables 1 and 2, and the official
configurations. This file knows shapes only; where the weights of a size are
found is in `gemma_scope.weights.catalog`.
"""

from collections.abc import Mapping
import dataclasses
import math

from gemma_scope.errors import CheckpointError
from gemma_scope.weights import catalog
from gemma_scope.weights.checkpoint import layer_shapes


@dataclasses.dataclass(frozen=True)
class GemmaConfig:
  """The shape of one Gemma 3.

  Attributes:
    size: The size's short name, such as "270m".
    num_layers: Number of decoder layers.
    d_model: Width of the residual stream.
    d_ff: Hidden units of the feed-forward.
    num_heads: Query heads.
    num_kv_heads: Key/value heads.
    head_dim: Width of one head.
    query_scalar: s of the score scale s ** -0.5 (query_pre_attn_scalar).
    window: Tokens that a local layer sees, itself included.
    rope_factor: Divisor of the rotary frequencies of global layers.
    max_context: Longest sequence the weights were trained for, in tokens.
    vocab_size: Number of token ids.
    period: Every `period`-th layer is global, the others local.
    rope_base_local: Rotary base of local layers.
    rope_base_global: Rotary base of global layers.
    norm_eps: Epsilon of every RMSNorm.
  """

  size: str
  num_layers: int
  d_model: int
  d_ff: int
  num_heads: int
  num_kv_heads: int
  head_dim: int
  query_scalar: float
  window: int
  rope_factor: float = 8.0
  max_context: int = 131_072
  vocab_size: int = 262_144
  period: int = 6
  rope_base_local: float = 1e4
  rope_base_global: float = 1e6
  norm_eps: float = 1e-6

  @property
  def num_parameters(self) -> int:
    """Parameters of the text model; the tied embedding counts once."""
    shapes = tensor_shapes(self).values()
    return sum(math.prod(shape) for shape in shapes)

  def is_global(self, layer: int) -> bool:
    """Whether `layer` attends to everything before it."""
    return (layer + 1) % self.period == 0


SIZES: Mapping[str, GemmaConfig] = {
  c.size: c
  for c in (
    GemmaConfig(
      "270m", 18, 640, 2048, 4, 1, 256, 256.0, 512, 1.0, max_context=32_768
    ),
    GemmaConfig(
      "1b", 26, 1152, 6912, 4, 1, 256, 256.0, 512, 1.0, max_context=32_768
    ),
    GemmaConfig("4b", 34, 2560, 10_240, 8, 4, 256, 256.0, 1024),
    GemmaConfig("12b", 48, 3840, 15_360, 16, 8, 256, 256.0, 1024),
    GemmaConfig("27b", 62, 5376, 21_504, 32, 16, 128, 168.0, 1024),
  )
}


def preset(name: str) -> GemmaConfig:
  """Returns the configuration of a model name, or of a bare size.

  Args:
    name: A name of the catalogue (base or instruction-tuned), or its size.

  Raises:
    ConfigError: If the catalogue has no such model.
  """
  if name in SIZES:
    return SIZES[name]
  return SIZES[catalog.lookup(name).size]


def tensor_shapes(config: GemmaConfig) -> dict[str, tuple[int, ...]]:
  """Canonical name -> shape of every tensor of a text model."""
  layer = layer_shapes(
    config.num_heads,
    config.num_kv_heads,
    config.head_dim,
    config.d_model,
    config.d_ff,
  )
  shapes: dict[str, tuple[int, ...]] = {
    "embedder/input_embedding": (config.vocab_size, config.d_model)
  }
  for i in range(config.num_layers):
    shapes |= {f"layer_{i}/{name}": shape for name, shape in layer.items()}
  shapes["final_norm/scale"] = (config.d_model,)
  return shapes


def config_from_shapes(
  shapes: Mapping[str, tuple[int, ...]], source: str
) -> GemmaConfig:
  """Finds the size whose tensors have exactly these shapes.

  Args:
    shapes: Canonical name -> shape, as a reader reports them.
    source: Where they came from, for the error.

  Raises:
    CheckpointError: If no size of Gemma 3 has these shapes.
  """
  for config in SIZES.values():
    if tensor_shapes(config) == dict(shapes):
      return config
  embedding = shapes.get("embedder/input_embedding")
  raise CheckpointError(
    "These tensors have the shapes of no Gemma 3 text model.",
    received=f"{source}: {len(shapes)} tensors, embedding {embedding}",
    instead=f"a checkpoint of one of the sizes {', '.join(SIZES)}",
  )
