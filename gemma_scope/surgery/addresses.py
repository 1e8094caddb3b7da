"""What a user types to say where an edit goes: sites, and units of them.

Besides the sites of `gemma_scope.sites.resolve` this reads single latents:
"resid_post[12].latents[5698]", or the address a dictionary gives of its own.
"""

from collections.abc import Iterable, Mapping
import re
from typing import Any, Protocol, runtime_checkable

from gemma_scope import axes
from gemma_scope.errors import SiteError
from gemma_scope.model.config import GemmaConfig
from gemma_scope.sites import Site, resolve


@runtime_checkable
class LatentsOf(Protocol):
  """An address of latents, as dictionaries give it."""

  @property
  def site(self) -> Site:
    """The site whose reader has the latents."""
    ...

  @property
  def indices(self) -> tuple[int, ...] | None:
    """Which latents; None for all."""
    ...


Address = str | Site | LatentsOf | Iterable[Any]

_LATENTS = re.compile(r"(.*\.latents)\s*\[([\d\s,:]*)\]\s*")


def sites_and_units(
  at: Address, num_layers: int
) -> tuple[tuple[Site, ...], tuple[int, ...] | None]:
  """The sites that an address means, and the units if it names some.

  Args:
    at: One address, or several sites.
    num_layers: Number of decoder layers of the model.

  Raises:
    SiteError: If it names no site, or units for several sites at once.
  """
  if isinstance(at, Site):
    return resolve(at, num_layers), None
  if isinstance(at, LatentsOf):
    return resolve(at.site.latents, num_layers), at.indices
  if isinstance(at, str):
    match = _LATENTS.fullmatch(at)
    if match is None:
      return resolve(at, num_layers), None
    return resolve(match[1], num_layers), _indices(match[2], at)
  found = [sites_and_units(one, num_layers) for one in _several(at)]
  if any(units is not None for _, units in found):
    raise SiteError(
      "Single latents are addressed one site at a time.",
      received=f"{at!r:.80}",
      instead="one edit for each, in the order they should act",
    )
  return resolve([s for sites, _ in found for s in sites], num_layers), None


def _several(at: Any) -> list[Any]:
  if not isinstance(at, Iterable) or isinstance(at, Mapping):
    at = []
  several = list(at)
  if not several:
    raise SiteError(
      "There is no site to edit.",
      received=f"{at!r:.80}",
      instead='for example "resid_post[12]" or ["z[3]", "z[5]"]',
    )
  return several


def _indices(text: str, received: str) -> tuple[int, ...] | None:
  if text.strip() == ":":
    return None
  try:
    return tuple(int(part) for part in text.split(","))
  except ValueError as error:
    raise SiteError(
      "Latents are named by whole numbers from 0.",
      received=received,
      instead='"resid_post[12].latents[17]", or "….latents" for all',
    ) from error


def axis_sizes(site: Site, config: GemmaConfig) -> dict[str, int]:
  """Axis -> size at a site, as far as the model's shape tells it.

  `batch`, `seq`, `kv_seq` and `latents` are not among them.
  """
  sizes = {
    axes.EMBEDDING: config.d_model,
    axes.NEURONS: config.d_ff,
    axes.HEADS: config.num_heads,
    axes.KV_HEADS: config.num_kv_heads,
    axes.PROJECTION: config.head_dim,
    axes.VOCABULARY: config.vocab_size,
  }
  return {name: sizes[name] for name in site.info.axes if name in sizes}
