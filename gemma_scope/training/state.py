"""All that a run carries from step to step, and how it begins.

Arrays of a group have an axis `members` in front. Everything the next step
depends on is here or in the row source, so that both together resume a run.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import optax

from gemma_scope.sites import Site
from gemma_scope.training.config import Group, Optimiser, TrainConfig
from gemma_scope.training.losses import term_names
from gemma_scope.training.parameters import Layout, Params, init, layout_of
from gemma_scope.training.scaling import SiteScale


class Alarm(NamedTuple):
  """The first step at which a member's numbers were not finite.

  Attributes:
    step: [members] int32, -1 while all is well.
    terms: [members, terms + 1] bool: which; the last is the gradient.
  """

  step: Int[Array, " members"]
  terms: Array


class GroupState(NamedTuple):
  """A group's part of the state.

  Attributes:
    params: Parameters, see `parameters`.
    moments: The optimiser's state.
    since: For each part, rows since each latent fired, [members, latents].
    threshold: Mean of the smallest active latent, for BatchTopK, [members].
    scale_in: What each site that is read is multiplied with, [members, sites].
    scale_out: The same of the sites rebuilt.
    alarm: See `Alarm`.
  """

  params: Params
  moments: Any
  since: tuple[Int[Array, "members latents"], ...]
  threshold: Float[Array, " members"]
  scale_in: Float[Array, "members sites"]
  scale_out: Float[Array, "members sites"]
  alarm: Alarm


class TrainState(NamedTuple):
  """The state of a run.

  Attributes:
    step: Steps done, int32.
    groups: One for each group of the configuration.
  """

  step: Int[Array, ""]
  groups: tuple[GroupState, ...]


def transformation(options: Optimiser) -> optax.GradientTransformation:
  """Adam without learning rate; with b1 = 0 it keeps no first moment."""
  if options.b1 == 0:
    return optax.scale_by_rms(
      options.b2, options.eps, eps_in_sqrt=False, bias_correction=True
    )
  return optax.scale_by_adam(options.b1, options.b2, options.eps)


def layouts(
  config: TrainConfig, widths: Mapping[Site, int]
) -> tuple[Layout, ...]:
  """The layout of every group.

  Args:
    config: The run.
    widths: How many numbers a vector at each site has.
  """
  return tuple(
    layout_of(
      g, widths[g.members[0].sites_in[0]], widths[g.members[0].writes[0]]
    )
    for g in config.groups
  )


def begin(config: TrainConfig, scales: Mapping[Site, SiteScale]) -> TrainState:
  """The state before the first step.

  Args:
    config: The run.
    scales: Of every site.
  """
  widths = {site: s.centre.shape[0] for site, s in scales.items()}
  shapes = layouts(config, widths)
  groups = zip(config.groups, shapes)
  return TrainState(
    jnp.int32(0), tuple(_begin(g, layout, scales) for g, layout in groups)
  )


def _begin(
  group: Group, layout: Layout, scales: Mapping[Site, SiteScale]
) -> GroupState:
  members = [_first(m, group, layout, scales) for m in group.members]
  params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
  count, width = len(members), group.architecture.width

  def of(sites: tuple[Site, ...]) -> Array:
    return jnp.stack([scales[s].scale for s in sites])

  return GroupState(
    params=params,
    moments=transformation(group.optimiser).init(params),
    since=tuple(
      jnp.zeros((count, width), jnp.int32) for _ in range(layout.parts)
    ),
    threshold=jnp.full((count,), -1, jnp.float32),
    scale_in=jnp.stack([of(m.sites_in) for m in group.members]),
    scale_out=jnp.stack([of(m.writes) for m in group.members]),
    alarm=Alarm(
      jnp.full((count,), -1, jnp.int32),
      jnp.zeros((count, len(term_names(group)) + 1), bool),
    ),
  )


def _first(
  member: Any, group: Group, layout: Layout, scales: Mapping[Site, SiteScale]
) -> Params:
  def centre(sites: tuple[Site, ...]) -> Array:
    return jnp.concatenate([scales[s].centre for s in sites])

  key = jax.random.key(member.seed)
  ends = centre(member.sites_in), centre(member.writes)
  return init(key, group, layout, *ends)
