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
from gemma_scope.weights.checkpoint import Sizes, canonical_shapes


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
    shapes = canonical_shapes(self.sizes).values()
    return sum(math.prod(shape) for shape in shapes)

  @property
  def sizes(self) -> Sizes:
    """The numbers that fix every tensor's shape."""
    return Sizes(
      num_layers=self.num_layers,
      num_heads=self.num_heads,
      num_kv_heads=self.num_kv_heads,
      head_dim=self.head_dim,
      d_model=self.d_model,
      d_ff=self.d_ff,
      vocabulary=self.vocab_size,
    )

  def is_global(self, layer: int) -> bool:
    """Whether `layer` attends to everything before it."""
    return (layer + 1) % self.period == 0


def _config(
  size: str, query_scalar: float, window: int, rope_factor: float, context: int
) -> GemmaConfig:
  """Adds to the catalogued sizes what the tensors' shapes do not tell."""
  sizes = catalog.SIZES[size]
  return GemmaConfig(
    size=size,
    num_layers=sizes.num_layers,
    d_model=sizes.d_model,
    d_ff=sizes.d_ff,
    num_heads=sizes.num_heads,
    num_kv_heads=sizes.num_kv_heads,
    head_dim=sizes.head_dim,
    query_scalar=query_scalar,
    window=window,
    rope_factor=rope_factor,
    max_context=context,
    vocab_size=sizes.vocabulary,
  )


SIZES: Mapping[str, GemmaConfig] = {
  "270m": _config("270m", 256.0, 512, 1.0, 32_768),
  "1b": _config("1b", 256.0, 512, 1.0, 32_768),
  "4b": _config("4b", 256.0, 1024, 8.0, 131_072),
  "12b": _config("12b", 256.0, 1024, 8.0, 131_072),
  "27b": _config("27b", 168.0, 1024, 8.0, 131_072),
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


def config_of(sizes: Sizes, source: str) -> GemmaConfig:
  """Finds the catalogued model that has these sizes.

  Args:
    sizes: What a reader inferred from the tensors' shapes.
    source: Where they came from, for the error.

  Raises:
    CheckpointError: If no Gemma 3 has these sizes.
  """
  for config in SIZES.values():
    if config.sizes == sizes:
      return config
  raise CheckpointError(
    "These tensors have the shapes of no Gemma 3 text model.",
    received=f"{source}: {sizes}",
    instead=f"a checkpoint of one of the sizes {', '.join(SIZES)}",
  )
