"""A mapping from sites to arrays, the form in which results come by site."""

from collections.abc import Iterator, Mapping
import dataclasses

from penzai import pz

from gemma_scope.errors import SiteError
from gemma_scope.sites import Site


@dataclasses.dataclass(frozen=True, repr=False)
class BySite(Mapping[Site, pz.nx.NamedArray]):
  """Arrays by site; keys print as `resid_post[12]`.

  A string is as good as a `Site` for looking one up.

  Attributes:
    arrays: Site -> array.
  """

  arrays: dict[Site, pz.nx.NamedArray]

  def find(self, site: Site | str) -> Site:
    """The key that a site or a string such as "resid_post[12]" means.

    Raises:
      SiteError: If there is none.
    """
    for key in self.arrays:
      if site in (key, str(key)):
        return key
    raise SiteError(
      "This site is not among the results.",
      received=str(site),
      instead=f"one of {', '.join(map(str, self.arrays)):.300}",
    )

  def __getitem__(self, site: Site | str) -> pz.nx.NamedArray:
    """The array of one site."""
    return self.arrays[self.find(site)]

  def __contains__(self, site: object) -> bool:
    return any(site in (key, str(key)) for key in self.arrays)

  def __iter__(self) -> Iterator[Site]:
    return iter(self.arrays)

  def __len__(self) -> int:
    return len(self.arrays)
