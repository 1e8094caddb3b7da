"""Changes along directions: steering, and projection out of or onto them.

    steer          x + scale * d,  or relative to the site's mean norm n
                   x + scale * n * d / |d|
    project out    x - B^T B x        project onto    B^T B x

with B an orthonormal basis of the directions' span. Source: Turner et al. 2023,
"Activation Addition" (steering); Arditi et al. 2024, "Refusal in Language
Models Is Mediated by a Single Direction", eq. 4 (projection out).
"""

from collections.abc import Mapping
import dataclasses
from typing import Any, Self

import jax.numpy as jnp
import numpy as np
from penzai import pz

from gemma_scope import axes
from gemma_scope.errors import ConfigError, SiteError
from gemma_scope.model.context import Context
from gemma_scope.sites import Site
from gemma_scope.surgery.addresses import Address
from gemma_scope.surgery.interventions.constants import Numbers
from gemma_scope.surgery.interventions.protocol import (
  Change,
  Given,
  Intervention,
)
from gemma_scope.surgery.interventions.where import where
from gemma_scope.surgery.positions import Choice


@pz.pytree_dataclass
class Steer(Change):
  """Adds a direction.

  Attributes:
    direction: Over the last axes of the site.
    scale: Its factor.
    norm: Mean norm of the site, to which the factor is relative; None where the
      direction is added as it is.
  """

  direction: Any
  scale: Any
  norm: Any | None

  def __call__(
    self, value: pz.nx.NamedArray, name: str, context: Context
  ) -> pz.nx.NamedArray:
    """Adds the direction, perhaps normed."""
    del name, context
    step = self.direction * self.scale
    if self.norm is None:
      return value + step
    last = tuple(self.direction.named_axes)
    square = (self.direction * self.direction).untag(*last)
    length = pz.nx.nmap(lambda d: jnp.sqrt(jnp.sum(d)))(square)
    return value + step * (self.norm / length)


@pz.pytree_dataclass
class Project(Change):
  """Projects vectors out of, or onto, the span of some directions.

  Attributes:
    basis: Orthonormal rows, [directions, width of the last axis].
    onto: Whether what lies in the span stays, or what lies outside.
  """

  basis: Any
  onto: bool = dataclasses.field(metadata={"pytree_node": False})

  def __call__(
    self, value: pz.nx.NamedArray, name: str, context: Context
  ) -> pz.nx.NamedArray:
    """The projection of every vector along the last axis of the site."""
    del context
    last = Site(name, 0).info.axes[-1]
    basis = pz.nx.wrap(self.basis, axes.COMPONENT, last)
    precise = pz.nx.nmap(lambda a, b: jnp.dot(a, b, precision="highest"))
    inside = precise(value.untag(last), basis.untag(last))
    back = precise(
      inside.untag(axes.COMPONENT), basis.untag(axes.COMPONENT)
    ).order_like(value)
    return back if self.onto else value - back

  def fit(self, site: Site, sizes: Mapping[str, int]) -> Self:
    """Checks the width."""
    last = site.info.axes[-1]
    width = self.basis.shape[1]
    if sizes.get(last) == width:
      return self
    raise SiteError(
      "Directions have another width than the site.",
      received=f"width {width}; {last} of {site} is {sizes.get(last, 'free')}",
      instead=f"directions [{sizes.get(last, 'width')}] or several of them",
    )


def steer(
  at: Address,
  direction: Given,
  *,
  scale: float | Any = 1.0,
  norm: Given | None = None,
  heads: Numbers = None,
  positions: Choice | None = None,
) -> Intervention:
  """Adds a direction at some sites.

  Args:
    at: Sites, such as "resid_post[12]".
    direction: An array over the last axes of the site, or one for each site.
    scale: Its factor.
    norm: The site's mean norm, or one for each site (see
      `activations.statistics.mean_norms`): then the direction counts by where
      it points alone, and `scale` in units of this norm.
    heads: Heads it acts on.
    positions: Tokens it acts on.

  Raises:
    ConfigError: If a direction points nowhere.
  """
  given = direction.values() if isinstance(direction, Mapping) else (direction,)
  for one in given:
    size = np.linalg.norm(_data(one))
    if not np.isfinite(size) or size == 0:
      raise ConfigError(
        "A direction must point somewhere.",
        received=f"a direction of norm {size}",
        instead="a finite vector that is not zero",
      )
  change = Steer(direction, scale, norm)
  return Intervention(at, change, where(heads, None, positions))


def project_out(
  at: Address,
  directions: Any,
  *,
  heads: Numbers = None,
  positions: Choice | None = None,
) -> Intervention:
  """Removes what vectors have along some directions.

  Args:
    at: Sites.
    directions: [width] or [directions, width], any lengths and angles.
    heads: Heads it acts on.
    positions: Tokens it acts on.

  Raises:
    ConfigError: If the directions do not span as many dimensions.
  """
  change = Project(orthonormal(directions), onto=False)
  return Intervention(at, change, where(heads, None, positions))


def project_onto(
  at: Address,
  directions: Any,
  *,
  heads: Numbers = None,
  positions: Choice | None = None,
) -> Intervention:
  """Keeps only what vectors have along some directions; as `project_out`."""
  change = Project(orthonormal(directions), onto=True)
  return Intervention(at, change, where(heads, None, positions))


def orthonormal(directions: Any) -> jnp.ndarray:
  """An orthonormal basis of the span, [directions, width] float32.

  Raises:
    ConfigError: If one of the directions follows from the others, or is zero.
  """
  rows = np.atleast_2d(_data(directions))
  if rows.ndim == 2 and np.isfinite(rows).all():
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    units = rows / np.where(lengths > 0, lengths, 1)
    if np.linalg.matrix_rank(units, tol=1e-5) == len(rows):
      return jnp.asarray(np.linalg.qr(units.T)[0].T, jnp.float32)
  raise ConfigError(
    "Directions must be finite and independent of one another.",
    received=f"an array of shape {rows.shape}",
    instead="[width] or [directions, width], none the sum of others or zero",
  )


def _data(given: Any) -> np.ndarray:
  if isinstance(given, pz.nx.NamedArray | pz.nx.NamedArrayView):
    given = given.unwrap(*given.named_shape)
  return np.asarray(given, np.float64)
