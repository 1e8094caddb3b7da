"""A matrix product over named axes, accumulated in float32."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from penzai import pz


@pz.pytree_dataclass
class Linear(pz.nn.Layer):
  """Contracts the axes `inputs` of its argument with `weights`.

  Attributes:
    weights: Axes `inputs` in front, the axes of the result behind.
    inputs: Names of the axes summed over, in the order of `weights`.
  """

  weights: pz.nx.NamedArray
  inputs: tuple[str, ...] = dataclasses.field(metadata={"pytree_node": False})

  def __call__(
    self, x: pz.nx.NamedArray, /, **_side_inputs
  ) -> pz.nx.NamedArray:
    """Maps axes `inputs` of `x` to the other axes of the weights."""
    kept = tuple(a for a in x.named_axes if a not in self.inputs)
    names = tuple(self.weights.named_axes)
    out = names[len(self.inputs) :]
    product = self.contract(
      x.unwrap(*kept, *self.inputs),
      self.weights.unwrap(*names),
      len(self.inputs),
    )
    return pz.nx.wrap(product, *kept, *out)

  def contract(self, x: jax.Array, w: jax.Array, count: int) -> jax.Array:
    """The product of positional arrays (see `contract`)."""
    return contract(x, w, count)


@pz.pytree_dataclass
class ShardedLinear(Linear):
  """The same in a model on a mesh.

  No axes are merged, for a merged axis has no shards of its own: the weights
  of all neurons would be gathered on every chip. On one CPU it is slower.

  Attributes:
    weights: Axes `inputs` in front, the axes of the result behind.
    inputs: Names of the axes summed over, in the order of `weights`.
  """

  weights: pz.nx.NamedArray
  inputs: tuple[str, ...] = dataclasses.field(metadata={"pytree_node": False})

  def contract(self, x: jax.Array, w: jax.Array, count: int) -> jax.Array:
    """The product of positional arrays (see `contract_apart`)."""
    return contract_apart(x, w, count)


def contract(
  x: Float[Array, "..."], w: Float[Array, "..."], count: int
) -> Float[Array, "..."]:
  """Sums the last `count` axes of `x` against the first `count` of `w`.

  The product is one plain matrix product, accumulated in float32 at full
  float32 precision (no bfloat16 or TF32 passes) and returned in x's dtype.
  """
  kept, summed, out = x.shape[:-count], x.shape[-count:], w.shape[count:]
  width = math.prod(summed)
  y = contract_apart(x.reshape(-1, width), w.reshape(width, -1), 1)
  return y.reshape(kept + out)


def contract_apart(
  x: Float[Array, "..."], w: Float[Array, "..."], count: int
) -> Float[Array, "..."]:
  """The same product, without merging axes."""
  summed = tuple(range(x.ndim - count, x.ndim)), tuple(range(count))
  y = jax.lax.dot_general(
    x,
    w,
    (summed, ((), ())),
    precision=precision_of(x.dtype),
    preferred_element_type=jnp.float32,
  )
  return y.astype(x.dtype)


def precision_of(dtype: jnp.dtype) -> jax.lax.Precision:
  """Full precision for float32 operands, the fast one for the others."""
  full = jnp.dtype(dtype) == jnp.float32
  return jax.lax.Precision.HIGHEST if full else jax.lax.Precision.DEFAULT
