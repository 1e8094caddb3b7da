"""Trained parameters -> dictionaries that read activations as they are.

    b_enc  <- b_enc - b_in @ w_enc          (pre-encoder bias)
    w_enc  <- s_in w_enc                    (input scale)
    w_dec  <- w_dec / s_out,  b_dec <- b_dec / s_out
    skip   <- skip s_in / s_out

Latents and thresholds stay those of training. BatchTopK becomes JumpReLU with
the mean over training of the smallest active latent as its threshold (Bussmann
et al. 2024, eq. 5). A gated dictionary keeps `b_in`: its two paths have biases
of their own.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array
from penzai import pz

from gemma_scope import axes
from gemma_scope.dictionaries.activations import (
  Activation,
  Gated,
  Relu,
  TopK,
  batch_top_k_to_jump_relu,
  jump_relu,
)
from gemma_scope.dictionaries.cross_layer import CrossLayer, LayerPart
from gemma_scope.dictionaries.crosscoder import Crosscoder
from gemma_scope.dictionaries.protocol import About, Dictionary
from gemma_scope.dictionaries.sae import Sae
from gemma_scope.dictionaries.transcoder import Transcoder
from gemma_scope.dictionaries.vectors import product
from gemma_scope.training.config import Group, Member, TrainConfig
from gemma_scope.training.parameters import Part
from gemma_scope.training.state import GroupState, TrainState


def finish(config: TrainConfig, state: TrainState) -> dict[str, Dictionary]:
  """Member label -> the dictionary as it stands.

  Args:
    config: The run.
    state: At any step.
  """
  made: dict[str, Dictionary] = {}
  for group, own in zip(config.groups, state.groups):
    for i, member in enumerate(group.members):
      kept = own._replace(moments=None)  # Adam's count has no members
      one = jax.tree.map(lambda leaf, i=i: jnp.asarray(leaf)[i], kept)
      made[member.label] = _finish_member(group, member, one, config)
  return made


def _finish_member(
  group: Group, member: Member, state: GroupState, config: TrainConfig
) -> Dictionary:
  kind = group.architecture.kind
  at_z = "z" in {s.name for s in (*member.sites_in, *member.writes)}
  about = About(
    kind=_kind(group, member),
    sites_in=member.sites_in,
    sites_out=member.writes,
    heads=config.heads if at_z else None,
    prefixes=group.architecture.prefixes,
    l0=float(member.l0),
    model=config.model,
    name=member.label,
  )
  parts = [_folded(p, group) for p in state.params["parts"]]
  found = [
    _activation(p, group, member, state.threshold, len(parts)) for p in parts
  ]
  if kind == "clt":
    return _layered(parts, found, state, about)
  if kind == "crosscoder":
    return _crosscoder(parts[0], found[0], state, about)
  return _single(parts[0], found[0], state, about)


def _kind(group: Group, member: Member) -> str:
  """A CLT that rebuilds what it reads is called a crosscoder."""
  kind = group.architecture.kind
  weakly = kind == "clt" and member.writes == member.sites_in
  return "crosscoder" if weakly else kind


def _folded(part: Part, group: Group) -> Part:
  """Without `b_in`, where it can be folded."""
  if group.architecture.activation == "gated":
    return part
  moved = product(part["b_in"][None, :], part["w_enc"])[0]
  kept = {name: value for name, value in part.items() if name != "b_in"}
  return kept | {"b_enc": part["b_enc"] - moved}


def _activation(
  part: Part, group: Group, member: Member, threshold: Array, parts: int
) -> Activation:
  name = group.architecture.activation
  if name == "jump_relu":
    return jump_relu(part["threshold"])
  if name == "batch_top_k":
    least = max(float(threshold), 0.0)
    return batch_top_k_to_jump_relu(least, part["b_enc"].shape[0])
  if name == "top_k":
    return TopK(int(member.l0) // parts)
  if name == "gated":
    return Gated(_latents(part["log_gain"]), _latents(part["b_magnitude"]))
  return Relu()


def _single(
  part: Part, activation: Activation, state: GroupState, about: About
) -> Dictionary:
  s_in, s_out = state.scale_in[0], state.scale_out[0]
  arrays: dict[str, Any] = {
    "w_enc": _reads(part["w_enc"] * s_in),
    "b_enc": _latents(part["b_enc"]),
    "w_dec": pz.nx.wrap(part["w_dec"] / s_out, axes.LATENTS, axes.OUTPUT),
    "b_dec": _output(state.params["b_dec"] / s_out),
    "activation": activation,
    "b_in": _b_in(part, s_in),
    "about": about,
  }
  if about.kind == "sae":
    return Sae(**arrays)
  return Transcoder(**arrays, skip=_skip(part, s_in, s_out))


def _crosscoder(
  part: Part, activation: Activation, state: GroupState, about: About
) -> Dictionary:
  count = len(about.sites_in)
  s = state.scale_in
  w_enc = jnp.split(part["w_enc"], count, axis=0)
  w_dec = jnp.split(part["w_dec"], count, axis=1)
  b_dec = jnp.split(state.params["b_dec"], count)
  b_in = None
  if "b_in" in part:
    pieces = jnp.split(part["b_in"], count)
    b_in = tuple(pz.nx.wrap(b / s[i], axes.INPUT) for i, b in enumerate(pieces))
  return Crosscoder(
    w_enc=tuple(_reads(w * s[i]) for i, w in enumerate(w_enc)),
    b_enc=_latents(part["b_enc"]),
    w_dec=tuple(
      pz.nx.wrap(w / s[i], axes.LATENTS, axes.OUTPUT)
      for i, w in enumerate(w_dec)
    ),
    b_dec=tuple(_output(b / s[i]) for i, b in enumerate(b_dec)),
    activation=activation,
    b_in=b_in,
    about=about,
  )


def _layered(
  parts: Sequence[Part],
  found: Sequence[Activation],
  state: GroupState,
  about: About,
) -> Dictionary:
  s_in, s_out = state.scale_in, state.scale_out
  b_dec = jnp.split(state.params["b_dec"], len(parts))
  made = []
  for p, (part, activation) in enumerate(zip(parts, found)):
    later = s_out[p:]
    w_dec = part["w_dec"].reshape(part["w_dec"].shape[0], later.shape[0], -1)
    w_dec = w_dec / later[None, :, None]
    made.append(
      LayerPart(
        w_enc=_reads(part["w_enc"] * s_in[p]),
        b_enc=_latents(part["b_enc"]),
        w_dec=pz.nx.wrap(w_dec, axes.LATENTS, axes.LAYER, axes.OUTPUT),
        b_dec=_output(b_dec[p] / s_out[p]),
        activation=activation,
        b_in=_b_in(part, s_in[p]),
        skip=_skip(part, s_in[p], s_out[p]),
      )
    )
  return CrossLayer(tuple(made), about, True)


def _b_in(part: Part, scale: Array) -> pz.nx.NamedArray | None:
  return (
    pz.nx.wrap(part["b_in"] / scale, axes.INPUT) if "b_in" in part else None
  )


def _skip(part: Part, s_in: Array, s_out: Array) -> pz.nx.NamedArray | None:
  if "skip" not in part:
    return None
  return pz.nx.wrap(part["skip"] * s_in / s_out, axes.INPUT, axes.OUTPUT)


def _reads(w: Array) -> pz.nx.NamedArray:
  return pz.nx.wrap(w, axes.INPUT, axes.LATENTS)


def _latents(v: Array) -> pz.nx.NamedArray:
  return pz.nx.wrap(v, axes.LATENTS)


def _output(v: Array) -> pz.nx.NamedArray:
  return pz.nx.wrap(v, axes.OUTPUT)
