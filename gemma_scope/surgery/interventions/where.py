"""What of a site an edit acts on: heads, units, tokens."""

from collections.abc import Mapping, Sequence
import dataclasses
import operator

import jax.numpy as jnp
import numpy as np
from penzai import pz

from gemma_scope import axes
from gemma_scope.errors import SiteError
from gemma_scope.model.context import Context
from gemma_scope.sites import Site, info_of
from gemma_scope.surgery.positions import Choice, Positions, positions_of

_HEADS = (axes.HEADS, axes.KV_HEADS)


@pz.pytree_dataclass
class Where(pz.Struct):
  """Heads, units and tokens; None for all of them.

  Attributes:
    heads: Query heads, or key/value heads where the site has these.
    units: Entries of the last axis: neurons, latents, dimensions.
    positions: Tokens.
  """

  heads: tuple[int, ...] | None = dataclasses.field(
    metadata={"pytree_node": False}
  )
  units: tuple[int, ...] | None = dataclasses.field(
    metadata={"pytree_node": False}
  )
  positions: Positions | None

  def mask(
    self, value: pz.nx.NamedArray, name: str, context: Context
  ) -> pz.nx.NamedArray | None:
    """Where the value changes, over some of its axes; None for everywhere."""
    names, sizes = info_of(name).axes, value.named_shape
    masks = []
    if self.heads is not None:
      axis = next(n for n in names if n in _HEADS)
      masks.append(_chosen(axis, sizes[axis], self.heads))
    if self.units is not None:
      masks.append(_chosen(names[-1], sizes[names[-1]], self.units))
    if self.positions is not None:
      here = self.positions.mask(context.placement)
      if context.placement is not None:  # padding counts positions too
        here &= context.placement.places.segment_ids != 0
      masks.append(pz.nx.wrap(here, axes.BATCH, axes.SEQ))
    if not masks:
      return None
    mask = masks[0]
    for more in masks[1:]:
      mask = mask & more
    return mask

  def check(self, site: Site, sizes: Mapping[str, int]) -> None:
    """Raises SiteError if the site has not these heads or units."""
    axis = next((n for n in site.info.axes if n in _HEADS), None)
    if self.heads is not None:
      if axis is None:
        raise SiteError(
          "This site has no heads.",
          received=f"heads={list(self.heads)} at {site}",
          instead="z, query, key, value or pattern; or no heads",
        )
      _check_range("heads", self.heads, sizes[axis], site)
    if self.units is not None:
      last = site.info.axes[-1]
      if last not in sizes:
        raise SiteError(
          "The last axis of this site is no list of units.",
          received=f"units={list(self.units)} at {site}, axis {last}",
          instead="units of mlp_act, of latents, or of a vector; or no units",
        )
      _check_range("units", self.units, sizes[last], site)


def where(
  heads: int | Sequence[int] | None = None,
  units: int | Sequence[int] | None = None,
  positions: Choice | None = None,
) -> Where:
  """Where an edit acts, from what a user types.

  Raises:
    SiteError: If heads or units are no whole numbers from 0.
    ConfigError: If positions choose no tokens.
  """
  chosen = None if positions is None else positions_of(positions)
  return Where(_whole("heads", heads), _whole("units", units), chosen)


def _whole(
  what: str, given: int | Sequence[int] | None
) -> tuple[int, ...] | None:
  if given is None:
    return None
  try:
    found = [given] if np.ndim(given) == 0 else list(given)  # type: ignore
    numbers = tuple(operator.index(i) for i in found)  # type: ignore
  except TypeError:
    numbers = ()
  if not numbers or min(numbers) < 0:
    raise SiteError(
      f"{what.capitalize()} are named by whole numbers from 0.",
      received=f"{what}={given!r:.80}",
      instead=f"{what}=[1, 3], or no {what} for all of them",
    )
  return numbers


def _check_range(
  what: str, numbers: tuple[int, ...], size: int, site: Site
) -> None:
  outside = [i for i in numbers if i >= size]
  if outside:
    raise SiteError(
      f"There are {size} {what} at {site}.",
      received=f"{what}={outside[:8]}",
      instead=f"{what} from 0 to {size - 1}",
    )


def _chosen(axis: str, size: int, numbers: tuple[int, ...]) -> pz.nx.NamedArray:
  chosen = np.zeros(size, bool)
  chosen[list(numbers)] = True
  return pz.nx.wrap(jnp.asarray(chosen), axis)
