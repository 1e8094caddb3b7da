"""What every sparse dictionary offers, whatever its kind or origin.

    latents        = encode(x)
    reconstruction = rebuild(latents, x) = decode(latents) (+ x @ skip)

A dictionary reads the vectors at `sites_in` and rebuilds those at `sites_out`.
It is a pytree of named arrays with a static `about`. It takes plain arrays
[..., d] (several sites: [layer, ..., d], one entry a site, in order) and gives
the same form back; or named arrays with the axes of its site, in any order
(several sites: with an axis `layer`), and then names what it gives: `latents`
in the place of the site's own axes, or these in the place of `latents`. z is
taken as heads x projection and rebuilt in that shape if a named array was
given; plain arrays hold the heads concatenated. Everything is computed and
returned in float32, whatever the dtype of `x`.
"""

from collections.abc import Sequence
import dataclasses
from typing import Any, Protocol, runtime_checkable

import numpy as np

from gemma_scope.errors import ConfigError
from gemma_scope.sites import Site

Values = Any  # a plain array, or a named one

KINDS = ("sae", "transcoder", "crosscoder", "clt")


@dataclasses.dataclass(frozen=True)
class About:
  """What is known of a dictionary besides its arrays; hashable.

  Attributes:
    kind: "sae", "transcoder", "crosscoder" or "clt".
    sites_in: The sites it reads, in the order of the axis `layer`.
    sites_out: The sites it rebuilds, in the same order.
    heads: Number of heads where a site is z, to give its shape back; None
      leaves the heads concatenated.
    prefixes: Sizes of the Matryoshka prefixes, rising; empty for none. Latents
      [0, size) alone reconstruct, more coarsely.
    l0: Active latents a token (of all layers together) that training aimed at,
      or None.
    model: Catalogue name of the model it was trained on, or None.
    name: Where it is from: a published name or a folder; may be empty.
  """

  kind: str
  sites_in: tuple[Site, ...]
  sites_out: tuple[Site, ...]
  heads: int | None = None
  prefixes: tuple[int, ...] = ()
  l0: float | None = None
  model: str | None = None
  name: str = ""

  def __post_init__(self) -> None:
    rising = list(self.prefixes) == sorted(set(self.prefixes))
    if self.kind not in KINDS or not self.sites_in or not rising:
      raise ConfigError(
        "This describes no dictionary.",
        received=f"kind={self.kind!r}, {len(self.sites_in)} sites, "
        f"prefixes={self.prefixes}",
        instead=f"a kind of {', '.join(KINDS)}, at least one site, prefixes "
        "in rising order",
      )

  def __str__(self) -> str:
    sites = ", ".join(map(str, self.sites_in))
    if self.sites_in != self.sites_out:
      sites += f" -> {', '.join(map(str, self.sites_out))}"
    return f"{self.kind} of {sites}{f' ({self.name})' if self.name else ''}"


@dataclasses.dataclass(frozen=True)
class LatentAddress:
  """The address of latents; prints as `resid_post[12].latents[5698]`.

  Attributes:
    site: The site at which the latents are computed (the one that is read).
    indices: Which latents; None for all.
    dictionary: `About.name` of the dictionary, to tell two at one site apart.
  """

  site: Site
  indices: tuple[int, ...] | None = None
  dictionary: str = ""

  def __getitem__(self, index: int | Sequence[int]) -> "LatentAddress":
    """The address of one latent, or of several."""
    given = (index,) if isinstance(index, int | np.integer) else tuple(index)
    indices = tuple(int(i) for i in given)
    if self.indices is not None or not indices or min(indices) < 0:
      raise ConfigError(
        "Latents are addressed by whole numbers from 0, once.",
        received=f"{self}[{index!r}]",
        instead=f"{self.site}.latents[17] or latents[[17, 42]]",
      )
    return dataclasses.replace(self, indices=indices)

  def __str__(self) -> str:
    chosen = ", ".join(map(str, self.indices)) if self.indices else ":"
    return f"{self.site}.latents[{chosen}]"


@runtime_checkable
class Dictionary(Protocol):
  """A sparse dictionary: SAE, transcoder, crosscoder, CLT, or one of yours."""

  @property
  def about(self) -> About:
    """Kind, sites and origin."""
    ...

  @property
  def sites_in(self) -> tuple[Site, ...]:
    """The sites it reads."""
    ...

  @property
  def sites_out(self) -> tuple[Site, ...]:
    """The sites it rebuilds."""
    ...

  @property
  def num_latents(self) -> int:
    """Number of latents; of one layer, where each layer has its own."""
    ...

  def encode(self, x: Values, /) -> Values:
    """Latents of the vectors at `sites_in`, [..., latents] float32.

    Where every layer has latents of its own (see `Layered`), [layer, ...,
    latents].
    """
    ...

  def decode(self, latents: Values, /) -> Values:
    """What latents alone say of the vectors at `sites_out`, bias included."""
    ...

  def rebuild(self, latents: Values, x: Values, /) -> Values:
    """`decode(latents)` plus what passes beside the latents (affine skip)."""
    ...

  def __call__(self, x: Values, /) -> Values:
    """The reconstruction: `rebuild(encode(x), x)`."""
    ...


@runtime_checkable
class Layered(Dictionary, Protocol):
  """A dictionary each of whose layers has latents of its own.

  Latents of position i are computed from `sites_in[i]` alone. In a causal one
  they write to `sites_out[i:]`, so that it can be spliced into one forward
  pass: encode on arrival at `sites_in[i]`, rebuild on arrival at
  `sites_out[j]` from the latents of positions up to j.
  """

  @property
  def causal(self) -> bool:
    """Whether no position writes to the ones before it."""
    ...

  def encode_at(self, position: int, x: Values, /) -> Values:
    """Latents of one position from the vectors at `sites_in[position]`."""
    ...

  def rebuild_at(
    self, position: int, latents: Sequence[Values], x: Values, /
  ) -> Values:
    """The vectors at `sites_out[position]`.

    Args:
      position: Index into `sites_out`.
      latents: Those of positions 0, 1, … in order: at least up to `position`
        where it is causal, all of them where it is not.
      x: The vectors at `sites_in[position]`, for the affine skip.
    """
    ...
