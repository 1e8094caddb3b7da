"""Targets inside the model: a neuron, a latent, a direction at some site.

The value is read at the target's column, so a neuron's target says what makes
it fire there. What comes after the site has no part in it.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from gemma_scope import axes
from gemma_scope.attribution.objectives.protocol import (
  Position,
  ResolvedTarget,
  Seen,
  Target,
)
from gemma_scope.errors import SiteError
from gemma_scope.model.config import GemmaConfig
from gemma_scope.model.language_model import LanguageModel
from gemma_scope.sites import Site, resolve


@dataclasses.dataclass(frozen=True)
class ActivationTarget(Target):
  """One element of a site.

  Attributes:
    site: Its address.
    element: Axis -> index, for every axis but batch and seq.
  """

  site: Site | str
  element: Mapping[str, int]

  def resolve(self, lm: LanguageModel) -> "ResolvedDirection":
    """The direction that picks the element.

    Raises:
      SiteError: If the site has no such element.
    """
    site = one_site(self.site, lm.config.num_layers)
    sizes = element_sizes(site, lm.config)
    good = set(self.element) == set(sizes) and all(
      -size <= self.element[name] < size for name, size in sizes.items()
    )
    if not good:
      shape = ", ".join(f"{name}: 0 to {n - 1}" for name, n in sizes.items())
      raise SiteError(
        "This site has no such element.",
        received=f"{site} at {dict(self.element)}",
        instead=f"an index for every axis: {shape}",
      )
    picked = np.zeros(tuple(sizes.values()), np.float32)
    picked[tuple(self.element[name] for name in sizes)] = 1.0
    return ResolvedDirection(jnp.asarray(picked), (site,))


@dataclasses.dataclass(frozen=True)
class ProjectionTarget(Target):
  """A direction of a site.

  Attributes:
    site: Its address.
    direction: An array with the site's axes, without batch and seq.
  """

  site: Site | str
  direction: Any

  def resolve(self, lm: LanguageModel) -> "ResolvedDirection":
    """The direction as an array.

    Raises:
      SiteError: If its shape is not that of the site.
    """
    site = one_site(self.site, lm.config.num_layers)
    sizes = element_sizes(site, lm.config)
    direction = jnp.asarray(self.direction, jnp.float32)
    if direction.shape != tuple(sizes.values()):
      raise SiteError(
        "A direction must have the shape of its site.",
        received=f"shape {direction.shape} at {site}",
        instead=f"shape {tuple(sizes.values())}: {', '.join(sizes)}",
      )
    return ResolvedDirection(direction, (site,))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ResolvedDirection(ResolvedTarget):
  """A direction of one site.

  Attributes:
    direction: What the value there is multiplied with, float32.
    reads: The site.
  """

  direction: Float[Array, "..."]
  reads: tuple[Site, ...] = dataclasses.field(metadata={"static": True})

  def value(self, seen: Seen) -> Float[Array, " batch"]:
    """The inner product with the site's value, in the site's units."""
    value = seen.at(self.reads[0]).astype(jnp.float32)
    flat = value.reshape(value.shape[0], -1)
    return jnp.matmul(
      flat, self.direction.reshape(-1), precision=jax.lax.Precision.HIGHEST
    )


def one_site(spec: Site | str, num_layers: int) -> Site:
  """The single site that a spec means.

  Raises:
    SiteError: If it means several, or one that has no value for each token.
  """
  sites = resolve(spec, num_layers)
  if len(sites) == 1 and axes.KV_SEQ not in sites[0].info.axes:
    return sites[0]
  raise SiteError(
    "A target inside the model reads one site with a value for each token.",
    received=str(spec),
    instead='a single layer, for example "mlp_act[5]" or "resid_post[12]"',
  )


def element_sizes(site: Site, config: GemmaConfig) -> dict[str, int]:
  """Axis -> size of a site's value, without batch and seq."""
  sizes = {
    axes.EMBEDDING: config.d_model,
    axes.HEADS: config.num_heads,
    axes.KV_HEADS: config.num_kv_heads,
    axes.PROJECTION: config.head_dim,
    axes.NEURONS: config.d_ff,
    axes.VOCABULARY: config.vocab_size,
  }
  return {n: sizes[n] for n in site.info.axes if n in sizes}


def activation(
  site: Site | str, element: Mapping[str, int], position: Position = -1
) -> Target:
  """The value of one element: a neuron, a coordinate of a head, a latent.

  Args:
    site: The address, such as "mlp_act[5]".
    element: Axis -> index, such as {"neurons": 123}.
    position: Column at which it is read.
  """
  return ActivationTarget(site, element, position=position)


def projection(
  site: Site | str, direction: Any, position: Position = -1
) -> Target:
  """How far a site's value points in a direction, such as a probe's.

  Args:
    site: The address, such as "resid_post[12]".
    direction: An array with the site's axes, without batch and seq.
    position: Column at which it is read.
  """
  return ProjectionTarget(site, direction, position=position)
