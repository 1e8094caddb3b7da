"""How canonical tensors lie in the model: axis names and orders.

One table, read in both directions. Matrices are stored with the summed axes in
front, so that every product is one plain matrix product.
"""

from collections.abc import Mapping
import dataclasses

from gemma_scope import axes
from gemma_scope.model.config import GemmaConfig


@dataclasses.dataclass(frozen=True)
class ArrayLayout:
  """How one canonical tensor lies in the model.

  Attributes:
    order: The canonical axes in the order in which the model stores them.
    axes: Their names, in the model's order.
  """

  order: tuple[int, ...]
  axes: tuple[str, ...]

  @property
  def inverse(self) -> tuple[int, ...]:
    """The permutation that leads back to the canonical order."""
    return tuple(self.order.index(i) for i in range(len(self.order)))


_EMBEDDING_SCALE = ArrayLayout((0,), (axes.EMBEDDING,))
_HEAD_SCALE = ArrayLayout((0,), (axes.PROJECTION,))

LAYER_LAYOUT: Mapping[str, ArrayLayout] = {
  "pre_attention_norm/scale": _EMBEDDING_SCALE,
  "attn/q_einsum/w": ArrayLayout(
    (1, 0, 2), (axes.EMBEDDING, axes.HEADS, axes.PROJECTION)
  ),
  "attn/kv_einsum/w": ArrayLayout(
    (2, 0, 1, 3),
    (axes.EMBEDDING, axes.KEY_VALUE, axes.KV_HEADS, axes.PROJECTION),
  ),
  "attn/_query_norm/scale": _HEAD_SCALE,
  "attn/_key_norm/scale": _HEAD_SCALE,
  "attn/attn_vec_einsum/w": ArrayLayout(
    (0, 1, 2), (axes.HEADS, axes.PROJECTION, axes.EMBEDDING)
  ),
  "post_attention_norm/scale": _EMBEDDING_SCALE,
  "pre_ffw_norm/scale": _EMBEDDING_SCALE,
  "mlp/gating_einsum": ArrayLayout(
    (2, 0, 1), (axes.EMBEDDING, axes.GATE_UP, axes.NEURONS)
  ),
  "mlp/linear": ArrayLayout((0, 1), (axes.NEURONS, axes.EMBEDDING)),
  "post_ffw_norm/scale": _EMBEDDING_SCALE,
}

OUTER_LAYOUT: Mapping[str, ArrayLayout] = {
  "embedder/input_embedding": ArrayLayout(
    (0, 1), (axes.VOCABULARY, axes.EMBEDDING)
  ),
  "final_norm/scale": _EMBEDDING_SCALE,
}


def scanned_layers(config: GemmaConfig, k: int) -> range:
  """Layers of the scanned stack that stand at place `k` of their period."""
  whole = config.num_layers // config.period * config.period
  return range(k, whole, config.period)
