"""What an attribution returns: relevance by site, and how well it adds up."""

import dataclasses

import numpy as np
from penzai import pz

from gemma_scope import axes
from gemma_scope.activations.by_site import BySite
from gemma_scope.activations.tokens import TokenBatch
from gemma_scope.display import tokens_html
from gemma_scope.sites import Site

BALANCED = 0.05  # a larger share missing is worth a warning


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
    return "".join(parts)

  def _balance(self, site: Site, row: int) -> str:
    """What one prompt's relevance adds up to, in words."""
    total = float(self.total(site)[row])
    expected = float(self.expected[site][row])
    text = f"target {self.target[row]:.3f}, relevance sums to {total:.3f}"
    if np.isnan(expected):
      return text + ", no sum promised"
    off = abs(expected - total) > BALANCED * max(abs(expected), 1e-6)
    warning = " (does not add up: more steps, another baseline)" if off else ""
    return f"{text} of {expected:.3f}{warning}"
