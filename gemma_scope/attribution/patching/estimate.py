"""What an approximation of activation patching returns."""

import dataclasses

import numpy as np
from penzai import pz

from gemma_scope import axes
from gemma_scope.activations.by_site import BySite
from gemma_scope.activations.tokens import TokenBatch
from gemma_scope.display import tokens_html
from gemma_scope.errors import ConfigError, SiteError
from gemma_scope.sites import Site


@dataclasses.dataclass(frozen=True, repr=False)
class PatchEstimate(BySite):
  """Estimated effects of patching, cell by cell.

  Keys print as `resid_post[12]`. A value estimates the target of the patched
  run minus that of the base run, if one cell takes the source's value: one
  position, and one head where the site has heads. Arrays are float32, {batch,
  seq} and {heads} or {kv_heads}; zero on padding.

  Attributes:
    arrays: Site -> estimates.
    method: The method's name.
    source: [batch] the target on the prompts that values are taken from.
    base: [batch] the target on the prompts that they are put into.
    magnitudes: Site -> GradDrop's size of the effect, like `arrays` and never
      negative; empty but for AtP*.
    tokens: The base prompts.
    pieces: Text of every token of the base prompts, row by row.
  """

  method: str
  source: np.ndarray
  base: np.ndarray
  magnitudes: dict[Site, pz.nx.NamedArray]
  tokens: TokenBatch
  pieces: tuple[tuple[str, ...], ...]

  def per_position(self, site: Site | str) -> np.ndarray:
    """[batch, seq] the estimates of one site, summed over everything else.

    For a site with heads it estimates the effect of all heads of a position.
    """
    value = self[site]
    kept = (axes.BATCH, axes.SEQ)
    other = [n for n in value.named_axes if n not in kept]
    data = np.asarray(value.unwrap(*kept, *other))
    return data.sum(axis=tuple(range(2, data.ndim)))

  def stacked(self, name: str) -> pz.nx.NamedArray:
    """All layers of a site along an axis `layer` in front."""
    layers = [v for site, v in self.arrays.items() if site.name == name]
    if not layers:
      raise SiteError(
        "This site was not estimated.",
        received=name,
        instead=f"one of {', '.join(sorted({s.name for s in self.arrays}))}",
      )
    names = tuple(layers[0].named_axes)
    data = np.stack([np.asarray(v.unwrap(*names)) for v in layers])
    return pz.nx.wrap(data, axes.LAYER, *names)

  def magnitude(self, site: Site | str) -> pz.nx.NamedArray:
    """GradDrop's size of the effect at one site.

    Raises:
      ConfigError: If the method gives none.
    """
    if not self.magnitudes:
      raise ConfigError(
        "This method gives no magnitudes.",
        received=f"method={self.method!r}",
        instead='method="atp_star" with EstimateOptions(grad_drop=True)',
      )
    return self.magnitudes[self.find(site)]

  def __repr__(self) -> str:
    sites = ", ".join(map(str, self.arrays))
    return (
      f"PatchEstimate({self.method}, base={self.base}, source={self.source}, "
      f"at={sites:.200})"
    )

  def _repr_html_(self) -> str:
    site = next(iter(self.arrays))
    parts = []
    for i, pieces in enumerate(self.pieces):
      title = (
        f"{self.method} at {site}: target {self.base[i]:.3f} to "
        f"{self.source[i]:.3f}"
      )
      row = self.per_position(site)[i, : len(pieces)].tolist()
      parts.append(tokens_html(pieces, row, title=title))
    return "".join(parts)


def trimmed(value: pz.nx.NamedArray, tokens: TokenBatch) -> pz.nx.NamedArray:
  """Drops columns added to the prompts, and clears what stands on padding."""
  names = tuple(value.named_axes)
  data = np.asarray(value.unwrap(*names))
  kept = tokens.segment_ids != 0
  for i, name in enumerate(names):
    if name in (axes.SEQ, axes.KV_SEQ):
      shape = [1] * len(names)
      shape[names.index(axes.BATCH)], shape[i] = kept.shape
      data = np.take(data, np.arange(tokens.width), axis=i)
      data = data * kept.reshape(shape)
  return pz.nx.wrap(data, *names)
