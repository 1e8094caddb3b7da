"""Latents in training: what each activation makes of a batch.

    z = (x - b_in) @ w_enc + b_enc,   f = activation(z)

JumpReLU carries the straight-through gradients of its thresholds; TopK and
BatchTopK differentiate as the latents they keep; the gate of a gated dictionary
has no gradient from `f` (Rajamanoharan et al. 2024, "Improving Dictionary
Learning with Gated Sparse Autoencoders", eq. 7: it learns from its own losses).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gemma_scope.dictionaries.top_k import batch_top_k_mask, top_k_mask
from gemma_scope.training.config import Group
from gemma_scope.training.parameters import Part
from gemma_scope.training.products import matmul
from gemma_scope.training.straight_through import (
  Active,
  counted,
  jump_relu,
)

Batch = Float[Array, "rows latents"]


class Encoded(NamedTuple):
  """One part's latents.

  Attributes:
    active: Latents and their counts.
    z: Products with the encoder's bias: the gate, of a gated dictionary.
  """

  active: Active
  z: Batch


def products(part: Part, x: Float[Array, "rows d"], precision: str) -> Batch:
  """(x - b_in) @ w_enc."""
  centred, shift = split(part, x)
  return matmul(centred, part["w_enc"], precision) + shift[None, :]


def split(
  part: Part, x: Float[Array, "rows d"]
) -> tuple[Float[Array, "rows d"], Float[Array, " latents"]]:
  """The input less b_in without its gradient, and zeros that have it.

  The gradient of `b_in` is taken from that of the products' sum, which saves
  a product as large as the encoder's.
  """
  b_in, w_enc = part["b_in"], part["w_enc"]
  centred = x - jax.lax.stop_gradient(b_in)[None, :]
  moved = jax.lax.stop_gradient(b_in) - b_in  # zero, with the gradient
  return centred, (moved[None, :] @ jax.lax.stop_gradient(w_enc))[0]


def encode(
  parts: tuple[Part, ...],
  xs: tuple[Array, ...],
  group: Group,
  l0: Float[Array, ""],
  precision: str,
) -> tuple[Encoded, ...]:
  """Latents of every part.

  Args:
    parts: Parameters.
    xs: What each part reads, [rows, d].
    group: For the activation.
    l0: k of TopK and BatchTopK, for all parts together.
    precision: Of the products.
  """
  plain = [products(p, x, precision) for p, x in zip(parts, xs)]
  zs = [z + p["b_enc"][None, :] for z, p in zip(plain, parts)]
  name = group.architecture.activation
  if name == "jump_relu":
    width = jnp.float32(group.sparsity.bandwidth)
    found = [jump_relu(z, p["threshold"], width) for z, p in zip(zs, parts)]
  elif name == "gated":
    found = [counted(_gated(z, a, p)) for z, a, p in zip(zs, plain, parts)]
  else:
    found = [counted(f) for f in _kept(zs, name, l0)]
  return tuple(Encoded(f, z) for f, z in zip(found, zs))


def _kept(zs: list[Batch], name: str, l0: Any) -> list[Batch]:
  if name == "relu":
    return [jax.nn.relu(z) for z in zs]
  if name == "top_k":
    k = l0.astype(jnp.int32) // len(zs)
    return [jnp.where(top_k_mask(z, k), z, 0) for z in zs]
  together = jnp.concatenate(zs, axis=1) if len(zs) > 1 else zs[0]
  total = l0.astype(jnp.int32) * together.shape[0]
  f = jnp.where(batch_top_k_mask(together, total), together, 0)
  return jnp.split(f, len(zs), axis=1)


def _gated(gate: Batch, plain: Batch, part: Part) -> Batch:
  gain = jnp.exp(part["log_gain"])[None, :]
  magnitude = jax.nn.relu(plain * gain + part["b_magnitude"][None, :])
  return jnp.where(jax.lax.stop_gradient(gate) > 0, magnitude, 0)
