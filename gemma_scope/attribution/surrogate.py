"""One value, another derivative: the ground of every relevance rule.

    same_value(value, surrogate)   is `value`, and differentiates as `surrogate`

Relevance is value x modified cotangent, so a rule of layer-wise relevance
propagation is an operation with the same value and another derivative.
"""

import jax
import jax.numpy as jnp


@jax.custom_jvp
def same_value(value: jax.Array, surrogate: jax.Array) -> jax.Array:
  """Returns `value`, bit for bit, with the derivative of `surrogate`.

  Both have the same shape and dtype, and inside `shard_map` vary over the same
  mesh axes.
  """
  del surrogate
  return value


@same_value.defjvp
def _same_value_jvp(primals, tangents):
  value, _ = primals
  _, tangent = tangents
  return value, tangent


def stabilise(z: jax.Array, eps: float) -> jax.Array:
  """`z` moved away from zero by `eps`, its sign kept; +eps at zero."""
  eps = max(eps, float(jnp.finfo(z.dtype).tiny))  # float16 has no 1e-9
  return z + jnp.where(z < 0, -eps, eps).astype(z.dtype)


def ratio(y: jax.Array, z: jax.Array, eps: float) -> jax.Array:
  """Returns y / stabilise(z), held constant."""
  return jax.lax.stop_gradient(y / stabilise(z, eps))
