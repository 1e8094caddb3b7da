"""RMSNorm, computed in float32.

    y = x * rsqrt(mean(x ** 2) + eps) * (1 + scale)

Source: Zhang and Sennrich 2019, "Root Mean Square Layer Normalization", eq. 4,
with Gemma's 1 + scale. Stored scales carry no +1.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from penzai import pz


@pz.pytree_dataclass
class RMSNorm(pz.nn.Layer):
  """Normalises the one axis that `scale` names.

  Attributes:
    scale: The gain without its +1.
    eps: Added to the mean square.
  """

  scale: pz.nx.NamedArray
  eps: float = dataclasses.field(metadata={"pytree_node": False})

  def __call__(
    self, x: pz.nx.NamedArray, /, **_side_inputs
  ) -> pz.nx.NamedArray:
    """Normalises `x`; float32 inside, `x`'s dtype outside."""
    (axis,) = self.scale.named_axes
    normalise = pz.nx.nmap(lambda v, w: rms_norm(v, w, self.eps))
    return normalise(x.untag(axis), self.scale.untag(axis)).tag(axis)


def rms_norm(
  x: Float[Array, "... width"], scale: Float[Array, " width"], eps: float
) -> Float[Array, "... width"]:
  """The equation above over the last axis of `x`."""
  inverse = inverse_rms(x, eps)
  gain = 1.0 + scale.astype(jnp.float32)
  gain = gain.reshape((1,) * (x.ndim - 1) + gain.shape)
  return (x.astype(jnp.float32) * inverse * gain).astype(x.dtype)


def inverse_rms(
  x: Float[Array, "... width"], eps: float
) -> Float[Array, "... 1"]:
  """1 / sqrt(mean(x ** 2) + eps) over the last axis, float32."""
  x = x.astype(jnp.float32)
  return jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + eps)
