"""What an attribution returns: relevance by site, and how well it adds up.

Latents of a dictionary need nothing of their own here: where one is spliced
in, `at=["resid_post[12].latents"]` is a site like any other, and `top` ranks
them.
"""

from collections.abc import Callable
import dataclasses

import numpy as np
from penzai import pz

from gemma_scope import axes
from gemma_scope.activations.by_site import BySite
from gemma_scope.activations.tokens import TokenBatch
from gemma_scope.attribution import ranking
from gemma_scope.attribution.result_html import conservation_html
from gemma_scope.display import tokens_html
from gemma_scope.errors import ConfigError, SiteError
from gemma_scope.sites import Site

BALANCED = 0.05  # a larger share missing is worth a warning
SCALES = ("absolute", "largest", "target")


@dataclasses.dataclass(frozen=True, repr=False)
class Attribution(BySite):
  """Relevance of every element of some sites for one target.

  Keys print as `resid_post[12]`. Arrays are float32 with the axes of the site;
  zero on padding.

  Attributes:
    arrays: Site -> relevance.
    method: The method's name.
    target: [batch] value of the target on the prompt.
    expected: Site -> [batch] what the relevance should add up to; NaN where
      the method promises nothing.
    tokens: The rows that were run.
    pieces: Text of every token, row by row, for display.
  """

  method: str
  target: np.ndarray
  expected: dict[Site, np.ndarray]
  tokens: TokenBatch
  pieces: tuple[tuple[str, ...], ...]

  def per_token(self, site: Site | str = "embed") -> pz.nx.NamedArray:
    """Relevance {batch, seq}, summed over everything else."""
    value = self[site]
    data = np.asarray(value.unwrap(*value.named_axes))
    names = list(value.named_axes)
    other = tuple(
      i for i, n in enumerate(names) if n not in (axes.BATCH, axes.SEQ)
    )
    return pz.nx.wrap(data.sum(other), axes.BATCH, axes.SEQ)

  def total(self, site: Site | str = "embed") -> np.ndarray:
    """[batch] the sum of all relevance of one site."""
    return np.asarray(self.per_token(site).data_array).sum(axis=1)

  def residual(self, site: Site | str = "embed") -> np.ndarray:
    """[batch] what the relevance should add up to, minus what it does.

    For integrated gradients this is the completeness residual: the change of
    the target from the baseline to the prompt that the steps did not see.
    """
    return self.expected[self.find(site)] - self.total(site)

  def residuals(self) -> dict[Site, np.ndarray]:
    """Site -> [batch] `residual`; NaN where the method promises nothing."""
    return {site: self.residual(site) for site in self}

  def shares(self) -> dict[Site, np.ndarray]:
    """Site -> [batch] the part of the target that the relevance adds up to.

    1 everywhere for a method that conserves; NaN where the target is 0.
    """
    return {site: _divided(self.total(site), self.target) for site in self}

  def bos(self, site: Site | str = "embed") -> np.ndarray:
    """[batch] relevance of the first token, which takes what nobody wants.

    With BOS in front it is often larger than all the others together.
    """
    return np.asarray(self.per_token(site).data_array)[:, 0]

  def flow(self, name: str = "resid_post") -> pz.nx.NamedArray:
    """Relevance {layer, batch, seq} through all layers of one site.

    Raises:
      SiteError: If no layer of it is among the results.
    """
    sites = self._layers_of(name)
    data = [np.asarray(self.per_token(site).data_array) for site in sites]
    return pz.nx.wrap(np.stack(data), axes.LAYER, axes.BATCH, axes.SEQ)

  def per_head(self, site: Site | str) -> pz.nx.NamedArray:
    """Relevance {batch, heads} of a site such as z[3]."""
    found = ranking.per_element(self[site], axes.HEADS)
    return pz.nx.wrap(found, axes.BATCH, axes.HEADS)

  def per_neuron(self, site: Site | str) -> pz.nx.NamedArray:
    """Relevance {batch, neurons} of a site such as mlp_act[3]."""
    found = ranking.per_element(self[site], axes.NEURONS)
    return pz.nx.wrap(found, axes.BATCH, axes.NEURONS)

  def top(
    self, site: Site | str, count: int = 10
  ) -> tuple[tuple[ranking.Ranked, ...], ...]:
    """For each prompt, the elements of largest relevance, by size.

    Args:
      site: "z[3]" for one layer, or a name such as "mlp_act", of which all
        layers are ranked together.
      count: How many elements to name.

    Raises:
      SiteError: If it is not among the results.
    """
    names = {key.name for key in self}
    chosen = self._layers_of(site) if site in names else [self.find(site)]
    return ranking.top({key: self.arrays[key] for key in chosen}, count)

  def positive(self) -> "Attribution":
    """What speaks for the target: every element's positive relevance."""
    return self._mapped("positive part", lambda _, r: np.maximum(r, 0))

  def negative(self) -> "Attribution":
    """What speaks against the target: every element's negative relevance."""
    return self._mapped("negative part", lambda _, r: np.minimum(r, 0))

  def normalised(self, by: str = "absolute") -> "Attribution":
    """Relevance as shares, prompt by prompt and site by site.

    Args:
      by: "absolute" divides by the sum of sizes, "largest" by the largest size,
        "target" by the target's value. What would be divided by 0 becomes 0.

    Raises:
      ConfigError: If there is no such scale.
    """
    if by not in SCALES:
      raise ConfigError(
        "There is no such scale.",
        received=f"by={by!r}",
        instead=" or ".join(f"by={name!r}" for name in SCALES),
      )

    def scaled(_: Site, relevance: np.ndarray) -> np.ndarray:
      sizes = np.abs(relevance).reshape(len(relevance), -1)
      scales = {"absolute": sizes.sum(1), "largest": sizes.max(1, initial=0)}
      scale = scales.get(by, self.target)
      scale = scale.reshape(-1, *(1,) * (relevance.ndim - 1))
      return np.nan_to_num(_divided(relevance, scale)).astype(np.float32)

    return self._mapped(f"by {by}", scaled)

  def _mapped(
    self, what: str, f: Callable[[Site, np.ndarray], np.ndarray]
  ) -> "Attribution":
    """Relevance changed site by site; it promises no sum any more."""
    arrays, expected = {}, {}
    for site, value in self.arrays.items():
      names = [n for n in value.named_axes if n != axes.BATCH]
      data = f(site, np.asarray(value.unwrap(axes.BATCH, *names)))
      arrays[site] = pz.nx.wrap(data, axes.BATCH, *names)
      expected[site] = np.full_like(np.asarray(self.target), np.nan)
    method = f"{self.method}, {what}"
    return dataclasses.replace(
      self, arrays=arrays, expected=expected, method=method
    )

  def _layers_of(self, name: Site | str) -> list[Site]:
    """The layers of a site among the results, in order."""
    found = sorted(
      site for site in self if site.name == name and site.layer is not None
    )
    if not found:
      raise SiteError(
        "No layer of this site is among the results.",
        received=str(name),
        instead=f'at=["{name}[:]"] in the call that attributes',
      )
    return found

  def __repr__(self) -> str:
    sites = ", ".join(map(str, self.arrays))
    return f"Attribution({self.method}, target={self.target}, at={sites:.200})"

  def _repr_html_(self) -> str:
    site = next(iter(self.arrays))
    scores = np.asarray(self.per_token(site).data_array)
    parts = []
    for i, (pieces, row) in enumerate(zip(self.pieces, scores)):
      title = f"{self.method} at {site}: {self._balance(site, i)}"
      row = row[: len(pieces)].tolist()
      parts.append(tokens_html(pieces, row, title=title, apart=(0,)))
      if len(self) > 1:
        parts.append(self._conservation(i))
    return "".join(parts)

  def _balance(self, site: Site, row: int) -> str:
    """What one prompt's relevance adds up to, in words."""
    total = float(self.total(site)[row])
    expected = float(self.expected[site][row])
    first = float(self.bos(site)[row])
    text = (
      f"target {self.target[row]:.3f}, relevance sums to {total:.3f} "
      f"(first token {first:.3f}, the others {total - first:.3f})"
    )
    if np.isnan(expected):
      return text + ", no sum promised"
    off = abs(expected - total) > BALANCED * max(abs(expected), 1e-6)
    warning = " (does not add up: more steps, another baseline)" if off else ""
    return f"{text} of {expected:.3f}{warning}"

  def _conservation(self, row: int) -> str:
    """What the relevance of every site of one prompt adds up to."""
    return conservation_html(
      [str(site) for site in self],
      np.asarray([self.total(site)[row] for site in self]),
      float(self.target[row]),
      np.asarray([rest[row] for rest in self.residuals().values()]),
      title="Sum of relevance by site",
    )


def _divided(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Returns a / b, NaN where b is 0."""
  a, b = np.broadcast_arrays(np.asarray(a, np.float64), b)
  return np.divide(a, b, out=np.full(a.shape, np.nan), where=b != 0)
