"""Grouped-query attention with QK-norm and rotary positions.

Sites inside: `query`, `key` (after norm and rotation, what enters the dot
product), `value`, `pattern`, `z`. The full pattern exists only where its site
is tapped or edited; the kernels are in `attention_kernel`.

Source: "Gemma 3 Technical Report" (2025), section 2.
"""

import dataclasses

import jax
import jax.numpy as jnp
from penzai import pz

from gemma_scope import axes
from gemma_scope.model import attention_kernel as kernel
from gemma_scope.model.context import Context, Past, placed
from gemma_scope.model.linear import Linear
from gemma_scope.model.norms import RMSNorm
from gemma_scope.model.placement import Places
from gemma_scope.model.rope import rotate
from gemma_scope.model.site_layer import SiteLayer

QUERY_AXES = (axes.BATCH, axes.SEQ, axes.HEADS, axes.PROJECTION)
KEY_AXES = (axes.BATCH, axes.SEQ, axes.KV_HEADS, axes.PROJECTION)
PATTERN_AXES = (axes.BATCH, axes.HEADS, axes.SEQ, axes.KV_SEQ)


@pz.pytree_dataclass
class Attention(pz.nn.Layer):
  """The attention of one block, between its two norms.

  Attributes:
    to_query: Product to the query heads.
    to_key_value: Product to the keys and values.
    query_norm: RMSNorm of every query.
    key_norm: RMSNorm of every key.
    query: Site of the queries.
    key: Site of the keys.
    value: Site of the values.
    pattern: Site of the attention pattern.
    z: Site of the mixed values, head by head.
    output: Product back to the residual stream's width (W_O).
    scale: Factor of the scores, s ** -0.5.
    window: Tokens a query sees, itself included; None on a global layer.
  """

  to_query: Linear
  to_key_value: Linear
  query_norm: RMSNorm
  key_norm: RMSNorm
  query: pz.nn.Layer
  key: pz.nn.Layer
  value: pz.nn.Layer
  pattern: pz.nn.Layer
  z: pz.nn.Layer
  output: Linear
  scale: float = dataclasses.field(metadata={"pytree_node": False})
  window: int | None = dataclasses.field(metadata={"pytree_node": False})

  def __call__(
    self, x: pz.nx.NamedArray, /, *, context: Context, **side_inputs
  ) -> pz.nx.NamedArray:
    """Maps {batch, seq, embedding} to itself."""
    side_inputs["context"] = context
    place = placed(context)
    turn = place.globally if self.window is None else place.local
    both = self.to_key_value(x).unwrap(
      axes.BATCH, axes.SEQ, axes.KEY_VALUE, axes.KV_HEADS, axes.PROJECTION
    )
    key = self.key_norm(pz.nx.wrap(both[:, :, 0], *KEY_AXES), **side_inputs)
    query = self.query_norm(self.to_query(x), **side_inputs)
    query = pz.nx.wrap(rotate(query.unwrap(*QUERY_AXES), turn), *QUERY_AXES)
    key = pz.nx.wrap(rotate(key.unwrap(*KEY_AXES), turn), *KEY_AXES)
    value = pz.nx.wrap(both[:, :, 1], *KEY_AXES)
    z = self._mix(
      self.query(query, **side_inputs).unwrap(*QUERY_AXES),
      self.key(key, **side_inputs).unwrap(*KEY_AXES),
      self.value(value, **side_inputs).unwrap(*KEY_AXES),
      context,
    )
    z = self.z(pz.nx.wrap(z, *QUERY_AXES), **side_inputs)
    return self.output(z)

  def _mix(
    self, query: jax.Array, key: jax.Array, value: jax.Array, context: Context
  ) -> jax.Array:
    """From queries, keys and values to z, [batch, seq, heads, projection]."""
    place = placed(context)
    here = place.places
    dense = not isinstance(self.pattern, SiteLayer)
    if context.past is None and not dense:
      return kernel.blocked_attention(
        query, key, value, here, self.scale, self.window
      )
    keys = here
    if context.past is not None:
      key, value, keys = after(context.past, key, value, here)
    mask = kernel.visible(here, keys, self.window)
    pattern = kernel.attention_pattern(query, key, mask, self.scale)
    named = pz.nx.wrap(pattern, *PATTERN_AXES)
    named = self.pattern(named, context=context)
    return kernel.apply_pattern(named.unwrap(*PATTERN_AXES), value)


def after(
  past: Past, key: jax.Array, value: jax.Array, here: Places
) -> tuple[jax.Array, jax.Array, Places]:
  """Keys, values and their places with the earlier tokens in front."""
  keys = jnp.concatenate([past.key, key], axis=1)
  values = jnp.concatenate([past.value, value], axis=1)
  return keys, values, past.places.then(here)
