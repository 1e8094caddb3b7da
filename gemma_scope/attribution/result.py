"""What an attribution returns: relevance by site, and how well it adds up."""

from collections.abc import Iterator, Mapping
import dataclasses

import numpy as np
from penzai import pz

from gemma_scope import axes
from gemma_scope.activations.run import find_site
from gemma_scope.activations.tokens import TokenBatch
from gemma_scope.display import tokens_html
from gemma_scope.sites import Site


@dataclasses.dataclass(frozen=True, repr=False)
class Attribution(Mapping[Site, pz.nx.NamedArray]):
  """Relevance of every element of some sites for one target.

  Keys print as `resid_post[12]`; a string is as good as a `Site` for looking
  one up. Arrays are float32 with the axes of the site; zero on padding.

  Attributes:
    arrays: Site -> relevance.
    method: The method's name.
    target: [batch] value of the target on the prompt.
    expected: Site -> [batch] what the relevance should add up to; NaN where
      the method promises nothing.
    tokens: The rows that were run.
    pieces: Text of every token, row by row, for display.
  """

  arrays: dict[Site, pz.nx.NamedArray]
  method: str
  target: np.ndarray
  expected: dict[Site, np.ndarray]
  tokens: TokenBatch
  pieces: tuple[tuple[str, ...], ...]

  def __getitem__(self, site: Site | str) -> pz.nx.NamedArray:
    """The relevance of one site."""
    return self.arrays[find_site(site, self.arrays)]

  def __contains__(self, site: object) -> bool:
    return any(site in (key, str(key)) for key in self.arrays)

  def __iter__(self) -> Iterator[Site]:
    return iter(self.arrays)

  def __len__(self) -> int:
    return len(self.arrays)

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
    return self.expected[find_site(site, self.arrays)] - self.total(site)

  def __repr__(self) -> str:
    sites = ", ".join(map(str, self.arrays))
    return f"Attribution({self.method}, target={self.target}, at={sites:.200})"

  def _repr_html_(self) -> str:
    site = next(iter(self.arrays))
    scores = np.asarray(self.per_token(site).data_array)
    return "".join(
      tokens_html(
        pieces, row[: len(pieces)].tolist(), title=f"{self.method} at {site}"
      )
      for pieces, row in zip(self.pieces, scores)
    )
