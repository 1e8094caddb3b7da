"""A matrix product over named axes, accumulated in float32."""

import dataclasses

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
    product = contract(
      x.unwrap(*kept, *self.inputs),
      self.weights.unwrap(*names),
      len(self.inputs),
    )
    return pz.nx.wrap(product, *kept, *out)


def contract(
  x: Float[Array, "..."], w: Float[Array, "..."], count: int
) -> Float[Array, "..."]:
  """Sums the last `count` axes of `x` against the first `count` of `w`.

  Axes are not merged, so that a shard of one stays a shard; accumulated in
  float32 at full float32 precision (no bfloat16 or TF32 passes) and returned
  in x's dtype.
  """
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
