"""A target of one's own: any JAX function of logits or sites."""

from collections.abc import Callable, Iterable
import dataclasses

import jax
from jaxtyping import Array, Float
import numpy as np

from gemma_scope.attribution.objectives.activations import one_site
from gemma_scope.attribution.objectives.protocol import (
  Position,
  ResolvedTarget,
  Seen,
  Target,
  linearised,
)
from gemma_scope.errors import ConfigError
from gemma_scope.model.language_model import LanguageModel
from gemma_scope.sites import Site

ValueFunction = Callable[..., jax.Array]


@dataclasses.dataclass(frozen=True)
class FunctionTarget(Target):
  """A function of the logits, or of some sites.

  Attributes:
    f: The function.
    sites: What it reads; the logits if there is none.
  """

  f: ValueFunction
  sites: tuple[Site | str, ...]

  def resolve(self, lm: LanguageModel) -> "ResolvedFunction":
    """The same with addresses."""
    layers = lm.config.num_layers
    return ResolvedFunction(
      self.f, tuple(one_site(site, layers) for site in self.sites)
    )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ResolvedFunction(ResolvedTarget):
  """A function, applied row by row.

  Attributes:
    f: The function.
    reads: What it reads; the logits if there is none.
  """

  f: ValueFunction = dataclasses.field(metadata={"static": True})
  reads: tuple[Site, ...] = dataclasses.field(metadata={"static": True})
  linear = False

  def value(self, seen: Seen) -> Float[Array, " batch"]:
    """The function's value.

    Raises:
      ConfigError: If it does not return one number.
    """
    values = [seen.at(site) for site in self.reads] or [seen.logits()]
    shapes = [value.shape[1:] for value in values]
    rows = jax.numpy.concatenate(
      [value.reshape(value.shape[0], -1) for value in values], axis=1
    )
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])

    def one(row: jax.Array) -> jax.Array:
      parts = jax.numpy.split(row, ends[:-1])
      value = self.f(*(p.reshape(s) for p, s in zip(parts, shapes)))
      if np.shape(value) != ():
        raise ConfigError(
          "A target's function must return one number.",
          received=f"an array of shape {np.shape(value)}",
          instead="a scalar, for example jnp.sum of it",
        )
      return value.astype(jax.numpy.float32)

    return linearised(jax.vmap(one), rows)


def function(
  f: ValueFunction,
  sites: Iterable[Site | str] = (),
  position: Position = -1,
) -> Target:
  """Any JAX function of the logits, or of the values at some sites.

  Its first derivative is used as it is, under every rule table.

  Args:
    f: From the logits [vocabulary] of one position, or from the value of each
      site there, to a scalar. Name it and use it again: another function
      object compiles again.
    sites: Addresses; none for the logits.
    position: Column at which they are read.
  """
  return FunctionTarget(f, tuple(sites), position=position)
