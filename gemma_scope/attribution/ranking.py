"""Heads, neurons and latents by their relevance.

An element's relevance is the sum over its tokens and, for a head, its width.
"""

from collections.abc import Mapping
import dataclasses

import numpy as np
from penzai import pz

from gemma_scope import axes
from gemma_scope.errors import ConfigError
from gemma_scope.sites import Site

# What counts as an element of a site, the first one that it has.
ELEMENTS = (
  *(axes.HEADS, axes.KV_HEADS, axes.NEURONS, axes.LATENTS),
  axes.EMBEDDING,
)


@dataclasses.dataclass(frozen=True)
class Ranked:
  """One element of a site.

  Attributes:
    site: The site.
    axis: What it is an element of, such as "heads".
    index: Which one.
    relevance: Its relevance in one prompt.
  """

  site: Site
  axis: str
  index: int
  relevance: float

  def __str__(self) -> str:
    return f"{self.site} {self.axis} {self.index}: {self.relevance:+.4g}"


def element_axis(value: pz.nx.NamedArray) -> str:
  """The axis along which a site has elements to rank.

  Raises:
    ConfigError: If it has none.
  """
  names = tuple(map(str, value.named_axes))
  found = next((name for name in ELEMENTS if name in names), None)
  if found is None:
    raise ConfigError(
      "This value has no elements to rank.",
      received=f"axes {', '.join(names)}",
      instead=f"a site with one of the axes {', '.join(ELEMENTS)}",
    )
  return found


def per_element(value: pz.nx.NamedArray, axis: str) -> np.ndarray:
  """[batch, elements] relevance summed over everything but one axis.

  Raises:
    ConfigError: If the value has no such axis.
  """
  names = tuple(map(str, value.named_axes))
  if axis not in names:
    raise ConfigError(
      "This site has no such elements.",
      received=f"{axis} of a site with axes {', '.join(names)}",
      instead=f"a site with an axis {axis}, such as {_EXAMPLES[axis]}",
    )
  others = [name for name in names if name not in (axes.BATCH, axis)]
  data = np.asarray(value.unwrap(axes.BATCH, axis, *others))
  return data.sum(axis=tuple(range(2, data.ndim)))


def top(
  values: Mapping[Site, pz.nx.NamedArray], count: int
) -> tuple[tuple[Ranked, ...], ...]:
  """For each prompt, the elements of largest relevance, by size.

  Args:
    values: Site -> relevance; the sites are ranked together.
    count: How many elements to name.
  """
  sites = list(values)
  found = [element_axis(values[site]) for site in sites]
  scores = [per_element(values[s], axis) for s, axis in zip(sites, found)]
  which = np.concatenate(
    [np.full(part.shape[1], i) for i, part in enumerate(scores)]
  )
  index = np.concatenate([np.arange(part.shape[1]) for part in scores])
  rows = []
  for row in np.concatenate(scores, axis=1):
    order = np.argsort(-np.abs(row), kind="stable")[:count]
    rows.append(
      tuple(
        Ranked(sites[which[i]], found[which[i]], int(index[i]), float(row[i]))
        for i in order
      )
    )
  return tuple(rows)


_EXAMPLES = {
  axes.HEADS: "z[3]",
  axes.KV_HEADS: "value[3]",
  axes.NEURONS: "mlp_act[3]",
  axes.LATENTS: "resid_post[3].latents",
  axes.EMBEDDING: "resid_post[3]",
}
