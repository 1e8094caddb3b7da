"""The arrays of a dictionary in training: dicts of plain float32 arrays.

    z_p = (x_p - b_in_p) @ w_enc_p + b_enc_p          for each part p
    y   = sum over p of f_p @ w_dec_p + b_dec (+ x_p @ skip_p)

One form for every kind. SAE and transcoder: one part. Crosscoder: one part that
reads, and writes, its sites side by side. CLT: a part for each site, which
writes to its own and the later ones; `y` holds all sites side by side, part p
the columns from `Layout.offset(p)`. `finishing` turns them into dictionaries.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gemma_scope.training.config import Group

Part = dict[str, Array]
Params = dict[str, Any]  # {"parts": tuple[Part, ...], "b_dec": [d]}


@dataclasses.dataclass(frozen=True)
class Layout:
  """Sizes of a group's members.

  Attributes:
    sites: How many sites each reads, and rebuilds.
    d_in: Numbers of a vector at a site it reads.
    d_out: Numbers of a vector at a site it rebuilds.
    layered: Whether each site has a part of its own (CLT).
  """

  sites: int
  d_in: int
  d_out: int
  layered: bool

  @property
  def parts(self) -> int:
    """How many parts there are."""
    return self.sites if self.layered else 1

  @property
  def part_in(self) -> int:
    """Numbers that a part reads."""
    return self.d_in if self.layered else self.d_in * self.sites

  @property
  def written(self) -> int:
    """Numbers of all rebuilt sites together."""
    return self.d_out * self.sites

  def offset(self, part: int) -> int:
    """The first column that a part writes."""
    return part * self.d_out


def layout_of(group: Group, d_in: int, d_out: int) -> Layout:
  """The layout of a group's members, from the widths of their sites."""
  sites = len(group.members[0].sites_in)
  return Layout(sites, d_in, d_out, group.architecture.kind == "clt")


def init(
  key: Array,
  group: Group,
  layout: Layout,
  centre_in: Float[Array, " read"],
  centre_out: Float[Array, " written"],
) -> Params:
  """First parameters of one member.

  Decoder rows are random directions; encoders their transposes, where what is
  read and what is written have one width; the skip is zero.

  Args:
    key: Of the member.
    group: Of the member.
    layout: Of the group.
    centre_in: Where `b_in` starts: all sites it reads, side by side.
    centre_out: Where `b_dec` starts.
  """
  keys = jax.random.split(key, layout.parts)
  parts = tuple(
    _part(keys[p], group, layout, p, centre_in) for p in range(layout.parts)
  )
  return {"parts": parts, "b_dec": centre_out.astype(jnp.float32)}


def _part(
  key: Array, group: Group, layout: Layout, p: int, centre: Array
) -> Part:
  width, read = group.architecture.width, layout.part_in
  columns = layout.written - layout.offset(p)
  decoder_key, encoder_key = jax.random.split(key)
  w_dec = unit_rows(jax.random.normal(decoder_key, (width, columns)))
  own = w_dec[:, : layout.d_out] if layout.layered else w_dec
  if own.shape[1] == read:
    w_enc = own.T
  else:
    w_enc = unit_rows(jax.random.normal(encoder_key, (width, read))).T
  first = p * read if layout.layered else 0
  part = {
    "w_enc": w_enc,
    "b_enc": jnp.zeros((width,)),
    "b_in": centre[first : first + read].astype(jnp.float32),
    "w_dec": w_dec,
  }
  if group.architecture.affine_skip:
    part["skip"] = jnp.zeros((read, layout.d_out))
  return part | _of_activation(group, width)


def _of_activation(group: Group, width: int) -> Part:
  name = group.architecture.activation
  if name == "jump_relu":
    first = jnp.full((width,), group.sparsity.threshold, jnp.float32)
    return {"threshold": first}
  if name == "gated":
    return {"log_gain": jnp.zeros((width,)), "b_magnitude": jnp.zeros((width,))}
  return {}


def unit_rows(w: Float[Array, "... d"]) -> Float[Array, "... d"]:
  """Rows of norm 1; a row of zeros stays."""
  norms = jnp.linalg.norm(w, axis=-1, keepdims=True)
  return w / jnp.where(norms > 0, norms, 1)


def project_gradients(grads: Params, params: Params) -> Params:
  """Takes from decoder gradients what points along the (unit) rows."""

  def projected(grad: Part, part: Part) -> Part:
    g, w = grad["w_dec"], part["w_dec"]
    along = (g * w).sum(axis=-1, keepdims=True)
    return grad | {"w_dec": g - along * w}

  parts = zip(grads["parts"], params["parts"])
  return grads | {"parts": tuple(projected(g, p) for g, p in parts)}


def constrain(params: Params, unit_norm: bool) -> Params:
  """Decoder rows to norm 1, thresholds to zero or above."""

  def constrained(part: Part) -> Part:
    if unit_norm:
      part = part | {"w_dec": unit_rows(part["w_dec"])}
    if "threshold" in part:
      part = part | {"threshold": jnp.maximum(part["threshold"], 0)}
    return part

  return params | {"parts": tuple(map(constrained, params["parts"]))}


def decoder_norms(part: Part, d_out: int) -> Float[Array, " latents"]:
  """For each latent the sum over sites of the norm of what it writes there."""
  w = part["w_dec"]
  by_site = w.reshape(w.shape[0], -1, d_out)
  squares = jnp.square(by_site).sum(axis=2)
  return jnp.sqrt(jnp.maximum(squares, jnp.finfo(jnp.float32).tiny)).sum(axis=1)
