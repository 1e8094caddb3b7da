"""What components write into the residual stream, and how they read it.

A head writes its share of what attention adds. Behind W_O stands a norm, whose
scale depends on all heads together:

    attn_write = sum_n z_n W_O^n * s (1 + w),   s = 1 / rms(sum_n z_n W_O^n)

The share of head n is z_n W_O^n * s (1 + w), with the s of the run it is taken
from. So the shares of a layer's heads add up to its `attn_write` in each run,
and so do the differences between two runs. Patching an edge changes what one
reader sees; it does not change s.

A reader's slope is pulled back from where its own path is still apart from the
others': a query from after QK-norm and rotation, a feed-forward from behind its
norm. Each path has the pre-norm to itself, with its whole derivative.
"""

from collections.abc import Callable, Mapping
import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from penzai import pz

from gemma_scope.attribution.composites import RuleTable
from gemma_scope.attribution.transform import transform
from gemma_scope.model.linear import contract, precision_of
from gemma_scope.model.norms import inverse_rms, rms_norm
from gemma_scope.model.rope import Rotation, rotate

Arrays = Mapping[str, pz.nx.NamedArray]
Stream = Float[Array, "batch seq embedding"]
Slopes = Float[Array, "readers batch seq embedding"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LayerRun:
  """What one layer reads in some runs, and the target's slope behind it.

  Attributes:
    resid_pre: The stream that enters the layer.
    resid_mid: The stream between attention and feed-forward.
    turn: The layer's rotary angles.
    query: Slope at the queries, after norm and rotation.
    key: Slope at the keys, after norm and rotation.
    value: Slope at the values.
    mlp_in: Slope at the input of the feed-forward, behind its norm.
  """

  resid_pre: Stream
  resid_mid: Stream
  turn: Rotation
  query: Float[Array, "batch seq heads projection"]
  key: Float[Array, "batch seq kv_heads projection"]
  value: Float[Array, "batch seq kv_heads projection"]
  mlp_in: Stream


def head_writes(
  arrays: Arrays,
  z: Float[Array, "batch seq heads projection"],
  projected: Stream,
  eps: float,
) -> Float[Array, "heads batch seq embedding"]:
  """What each head adds to the residual stream, float32.

  Args:
    arrays: The layer's weights by canonical name.
    z: The mixed values of every head.
    projected: Their product with W_O, before the norm.
    eps: The norm's epsilon.
  """
  gain = 1.0 + _weight(arrays, "post_attention_norm/scale").astype(jnp.float32)
  shares = jnp.einsum(
    "bsnh,nhd->nbsd",
    z,
    _weight(arrays, "attn/attn_vec_einsum/w"),
    precision=precision_of(z.dtype),
    preferred_element_type=jnp.float32,
  )
  return shares * inverse_rms(projected, eps)[None] * gain[None, None, None]


def query_or_key(
  x: Stream,
  weights: Float[Array, "embedding projection"],
  arrays: Arrays,
  name: str,
  turn: Rotation,
  eps: float,
) -> Float[Array, "batch seq projection"]:
  """One head's queries ("query") or keys ("key"), as they enter the product."""
  raw = contract(_normed(x, arrays, "pre_attention_norm", eps), weights, 1)
  scale = _weight(arrays, f"attn/_{name}_norm/scale")
  return rotate(rms_norm(raw, scale, eps)[:, :, None], turn)[:, :, 0]


def values(
  x: Stream,
  weights: Float[Array, "embedding projection"],
  arrays: Arrays,
  eps: float,
) -> Float[Array, "batch seq projection"]:
  """One head's values."""
  return contract(_normed(x, arrays, "pre_attention_norm", eps), weights, 1)


def attention_readers(
  arrays: Arrays, run: LayerRun, eps: float, rules: RuleTable
) -> Slopes:
  """The slope of the stream as each query, key and value head reads it.

  Args:
    arrays: The layer's weights by canonical name.
    run: The layer's streams and slopes.
    eps: The norms' epsilon.
    rules: A rule table; the empty one gives gradients.

  Returns:
    Slopes of the query heads, then of the keys, then of the values.
  """
  query = _weight(arrays, "attn/q_einsum/w").transpose(1, 0, 2)
  key, value = _weight(arrays, "attn/kv_einsum/w").transpose(1, 2, 0, 3)

  def read_query(x: jax.Array, w: jax.Array) -> jax.Array:
    return query_or_key(x, w, arrays, "query", run.turn, eps)

  def read_key(x: jax.Array, w: jax.Array) -> jax.Array:
    return query_or_key(x, w, arrays, "key", run.turn, eps)

  def read_value(x: jax.Array, w: jax.Array) -> jax.Array:
    return values(x, w, arrays, eps)

  parts = [
    _each_head(read, run.resid_pre, weights, by, rules)
    for read, weights, by in (
      (read_query, query, run.query),
      (read_key, key, run.key),
      (read_value, value, run.value),
    )
  ]
  return jnp.concatenate(parts)


def feedforward_reader(
  arrays: Arrays, run: LayerRun, eps: float, rules: RuleTable
) -> Slopes:
  """The slope of the stream as the feed-forward reads it, [1, …]."""

  def read(x: jax.Array) -> jax.Array:
    return _normed(x, arrays, "pre_ffw_norm", eps)

  return pulled_back(read, run.resid_mid, run.mlp_in, rules)[None]


def _each_head(
  read: Callable[[jax.Array, jax.Array], jax.Array],
  x: Stream,
  weights: Float[Array, "heads embedding projection"],
  slope: Float[Array, "batch seq heads projection"],
  rules: RuleTable,
) -> Slopes:
  """The slope of the stream as each head alone reads it."""

  def one(w: jax.Array, by: jax.Array) -> jax.Array:
    return pulled_back(lambda x: read(x, w), x, by, rules)

  return jax.vmap(one)(weights, jnp.moveaxis(slope, 2, 0))


def pulled_back(
  read: Callable[[jax.Array], jax.Array],
  x: jax.Array,
  slope: jax.Array,
  rules: RuleTable,
) -> jax.Array:
  """A slope behind a function, as the slope in front of it."""
  value, pull = jax.vjp(transform(read, rules), x)
  return pull(slope.astype(value.dtype))[0]


def _normed(x: Stream, arrays: Arrays, name: str, eps: float) -> Stream:
  return rms_norm(x, _weight(arrays, f"{name}/scale"), eps)


def _weight(arrays: Arrays, name: str) -> jax.Array:
  """A weight's array, axes as in `gemma_scope.model.layout`."""
  return arrays[name].data_array
