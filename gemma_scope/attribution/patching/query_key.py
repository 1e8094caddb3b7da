"""What a query or key of another run does to attention, softmax included.

With p = softmax(s) the pattern of the base run, g = d target / d p its gradient
and s' the scores with one query (a row) or one key (a column) patched:

    query at i     sum_j (softmax(s'_i)_j - p_ij) g_ij
    key at j       sum_i sum_k (softmax(s_i with s'_ij at j)_k - p_ik) g_ik

Patching key j moves mass between j and the others, which keep their shares, so
the inner sum needs no softmax of its own: with p' the new weight of j,

    (p'_ij - p_ij) (g_ij - mean of g_i over the other keys)
    p'_ij = sigmoid(logit(p_ij) + s'_ij - s_ij)

for all keys in the time of one pattern. Where j has nearly all the mass, 1 - p
and the mean over the others come from a second softmax without it. A key serves
every query head of its group, and its effect is the sum over them. Windows and
sequences are those of the layer's own mask.

Source: Kramar et al. 2024, "AtP*: An efficient and scalable method for
localizing LLM behaviour to components", section 3.1.1 and appendix (the fix
for queries and keys); the closed form for keys is ours.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gemma_scope.model import attention_kernel as kernel
from gemma_scope.model.linear import precision_of
from gemma_scope.model.placement import Places


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Heads:
  """The attention of one layer in the base run, and the slope of its output.

  Attributes:
    query: Queries after norm and rotation.
    key: Keys after norm and rotation.
    value: Values.
    slope: d target / d z.
    places: Sequence and position of every token.
  """

  query: Float[Array, "batch seq heads projection"]
  key: Float[Array, "batch seq kv_heads projection"]
  value: Float[Array, "batch seq kv_heads projection"]
  slope: Float[Array, "batch seq heads projection"]
  places: Places


@functools.partial(jax.jit, static_argnames=("scale", "window"))
def query_effects(
  heads: Heads,
  query: Float[Array, "batch seq heads projection"],
  scale: float,
  window: int | None,
) -> Float[Array, "batch seq heads"]:
  """The estimated effect of each query in the place of the base run's."""
  mask = kernel.visible(heads.places, heads.places, window)
  before, after = (
    jax.nn.softmax(_masked_scores(q, heads.key, mask, scale), axis=-1)
    for q in (heads.query, query)
  )
  gradient = _inner(heads.slope, heads.value)
  effect = jnp.sum((after - before) * gradient, axis=-1)
  return effect.transpose(0, 2, 1)


@functools.partial(jax.jit, static_argnames=("scale", "window"))
def key_effects(
  heads: Heads,
  key: Float[Array, "batch seq kv_heads projection"],
  scale: float,
  window: int | None,
) -> Float[Array, "batch seq kv_heads"]:
  """The estimated effect of each key in the place of the base run's."""
  mask = kernel.visible(heads.places, heads.places, window)
  scores = _masked_scores(heads.query, heads.key, mask, scale)
  gradient = _inner(heads.slope, heads.value)
  rise = scale * _inner(heads.query, key - heads.key)
  log_odds, mean = _against_the_others(scores, gradient)
  moved = _sigmoid_change(log_odds, rise)
  effect = jnp.sum(moved * (gradient - mean), axis=2)
  batch, count, seq = effect.shape
  kv_heads = key.shape[2]
  grouped = effect.reshape(batch, kv_heads, count // kv_heads, seq).sum(axis=2)
  return grouped.transpose(0, 2, 1)


def _against_the_others(
  scores: Float[Array, "... keys"], gradient: Float[Array, "... keys"]
) -> tuple[Float[Array, "... keys"], Float[Array, "... keys"]]:
  """For each key log(p / (1 - p)), and the mean gradient of the others.

  No key but the first in rank has more than half the mass, so that 1 - p keeps
  its digits for the others. Where a key is the only one that is seen, its log
  odds are huge and finite: nothing it does changes the pattern.
  """
  pattern = jax.nn.softmax(scores, axis=-1)
  first = jax.nn.one_hot(
    jnp.argmax(scores, axis=-1), scores.shape[-1], dtype=bool
  )
  rest = jnp.where(first, kernel.MASKED, scores)
  whole, part = (
    jax.nn.logsumexp(s, axis=-1, keepdims=True) for s in (scores, rest)
  )
  small = jnp.where(first, 0, pattern)
  log_others = jnp.where(first, part - whole, jnp.log1p(-small))
  product = pattern * gradient
  mean = (product.sum(axis=-1, keepdims=True) - product) / (1 - small)
  mean_of_rest = jnp.sum(
    jax.nn.softmax(rest, axis=-1) * gradient, axis=-1, keepdims=True
  )
  return scores - whole - log_others, jnp.where(first, mean_of_rest, mean)


def _inner(
  rows: Float[Array, "batch seq heads projection"],
  columns: Float[Array, "batch kv_seq kv_heads projection"],
) -> Float[Array, "batch heads seq kv_seq"]:
  """Inner products of every head with its key/value head, float32."""
  product = jnp.einsum(
    "bkmh,bskh->bkms",
    kernel.fold_queries(rows, columns.shape[2]),
    columns,
    precision=precision_of(rows.dtype),
    preferred_element_type=jnp.float32,
  )
  batch, seq, count, _ = rows.shape
  return product.reshape(batch, count, seq, columns.shape[1])


def _masked_scores(
  query: Float[Array, "batch seq heads projection"],
  key: Float[Array, "batch kv_seq kv_heads projection"],
  mask: Bool[Array, "batch seq kv_seq"],
  scale: float,
) -> Float[Array, "batch heads seq kv_seq"]:
  """What goes into the softmax, float32."""
  scores = _inner(query * jnp.asarray(scale, query.dtype), key)
  return jnp.where(mask[:, None], scores, kernel.MASKED)


def _sigmoid_change(x: jax.Array, rise: jax.Array) -> jax.Array:
  """sigmoid(x + rise) - sigmoid(x), without cancellation for a small rise."""
  low, high = x + jnp.minimum(rise, 0), x + jnp.maximum(rise, 0)
  size = -jnp.expm1(-jnp.abs(rise))
  return jnp.sign(rise) * size * jax.nn.sigmoid(high) * jax.nn.sigmoid(-low)
