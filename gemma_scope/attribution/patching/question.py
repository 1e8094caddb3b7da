"""What an approximation of activation patching is asked, and what it returns.

A method is a function from a `PatchQuestion` to `Estimates`. It does not know
what a tokenizer or a batch of texts is.
"""

from collections.abc import Callable, Iterator
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from penzai import pz

from gemma_scope.attribution.composites import CP_LRP, RuleTable
from gemma_scope.attribution.pairs import Pairs
from gemma_scope.attribution.rows import Values
from gemma_scope.model.gemma import Gemma
from gemma_scope.sites import Site

PAIR_TOKENS = 2048  # tokens of the pairs that go through the model at once


@dataclasses.dataclass(frozen=True)
class EstimateOptions:
  """Options of the approximations.

  Attributes:
    steps: Points of an integration path.
    quadrature: "gauss_legendre", "midpoint" or "trapezoid".
    path: What integrated gradients move from base to source: "inputs", the
      token embeddings, one path for all sites; or "activations", the site
      itself, one path for each site.
    rules: The rule table of RelP.
    grad_drop: Whether AtP* also returns GradDrop's magnitudes, for which every
      layer costs one more row of a batch.
    per_element: Whether estimates keep every element of a site, not summed
      over embedding, projection, neurons and attended positions.
  """

  steps: int = 8
  quadrature: str = "gauss_legendre"
  path: str = "inputs"
  rules: RuleTable = CP_LRP
  grad_drop: bool = True
  per_element: bool = False


def _silent(_share: float) -> None:
  """Nobody wants to know."""


@dataclasses.dataclass(frozen=True)
class PatchQuestion:
  """What a method is asked.

  Attributes:
    model: The model.
    pairs: Prompts that values are taken from and put into, and the target.
    sites: Where values are put.
    options: Options of the method.
    tell: Called with the share of the question that is answered.
  """

  model: Gemma
  pairs: Pairs
  sites: tuple[Site, ...]
  options: EstimateOptions
  tell: Callable[[float], None] = _silent


@dataclasses.dataclass(frozen=True)
class Estimates:
  """What a method returns.

  Attributes:
    source: [batch] the target on the prompts that values are taken from.
    base: [batch] the target on the prompts that they are put into.
    values: Site -> estimate of patched - base for every cell; batch in front.
    magnitudes: Site -> size of the effect without cancellation; empty where
      the method has none.
  """

  source: jax.Array | np.ndarray
  base: jax.Array | np.ndarray
  values: Values
  magnitudes: Values


PatchMethod = Callable[[PatchQuestion], Estimates]


def groups(
  pairs: Pairs, tokens: int = PAIR_TOKENS
) -> Iterator[tuple[Pairs, int]]:
  """Pairs in groups of equal size.

  The last group is filled up with its last pair, so that one compiled program
  serves all of them.

  Args:
    pairs: The pairs.
    tokens: How many tokens of one side of the pairs a group has at most, if
      it has more than one pair.

  Yields:
    The pairs of a group, and how many of them count.
  """
  total, width = pairs.base.ids.shape
  size = max(1, min(total, tokens // width))
  for first in range(0, total, size):
    index = np.minimum(np.arange(first, first + size), total - 1)
    yield pairs.take(jnp.asarray(index)), min(size, total - first)


def joined(parts: list[tuple[Estimates, int]]) -> Estimates:
  """The estimates of all groups, one behind the other."""

  def arrays(field: str) -> np.ndarray:
    kept = [np.asarray(getattr(part, field))[:n] for part, n in parts]
    return np.concatenate(kept)

  def by_site(field: str) -> Values:
    values = [(getattr(part, field), n) for part, n in parts]
    return {
      site: _behind([(some[site], n) for some, n in values])
      for site in values[0][0]
    }

  return Estimates(
    arrays("source"), arrays("base"), by_site("values"), by_site("magnitudes")
  )


def _behind(parts: list[tuple[pz.nx.NamedArray, int]]) -> pz.nx.NamedArray:
  """The first rows of each array, one behind the other."""
  names = tuple(parts[0][0].named_axes)
  kept = [np.asarray(value.unwrap(*names))[:count] for value, count in parts]
  return pz.nx.wrap(np.concatenate(kept), *names)
