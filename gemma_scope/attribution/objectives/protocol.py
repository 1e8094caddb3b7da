"""What every target is: a number for each prompt, differentiable.

A `Target` is what a person writes (texts, sites); `resolve` turns it into
arrays, so that another token does not compile again. Its value is computed
from what it names alone: rows of the tied embedding, or a site.
"""

import abc
from collections.abc import Callable, Mapping
import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
from penzai import pz

from gemma_scope import axes
from gemma_scope.attribution.surrogate import same_value
from gemma_scope.errors import TextError
from gemma_scope.model.gemma import token_logits
from gemma_scope.model.language_model import LanguageModel
from gemma_scope.sites import Site

Position = int | tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Seen:
  """What a target may read of a forward pass.

  Attributes:
    normed: The final norm's output at the target's column of each row.
    table: The tied embedding.
    columns: The target's column in each row.
    taps: Values of the sites the target reads, among others.
  """

  normed: Float[Array, "batch embedding"]
  table: Float[Array, "vocabulary embedding"]
  columns: Int[Array, " batch"]
  taps: Mapping[Site, pz.nx.NamedArray]

  def logits(self) -> Float[Array, "batch vocabulary"]:
    """All logits at the target's column, float32: 1 MB a row."""
    return token_logits(self.normed, self.table)

  def at(self, site: Site) -> Float[Array, "batch ..."]:
    """A site at the target's column; other axes in the site's order."""
    names = [n for n in site.info.axes if n != axes.SEQ]
    value = self.taps[site].unwrap(axes.BATCH, axes.SEQ, *names[1:])
    return value[jnp.arange(value.shape[0]), self.columns]


class ResolvedTarget(abc.ABC):
  """A target as arrays; a pytree.

  Attributes:
    reads: The sites it reads; static.
    linear: Whether it is linear in what it reads, so that conserved relevance
      adds up to it.
  """

  reads: tuple[Site, ...] = ()
  linear: bool = True

  @property
  def rows(self) -> int | None:
    """How many prompts it is for; None for any number."""
    return None

  @abc.abstractmethod
  def value(self, seen: Seen) -> Float[Array, " batch"]:
    """The target of each row, float32."""

  def take(self, rows: Int[Array, " rows"]) -> "ResolvedTarget":
    """The same for some of the prompts, in any order, also repeated."""
    del rows
    return self


@dataclasses.dataclass(frozen=True)
class Target(abc.ABC):
  """What is explained, as a person writes it.

  Attributes:
    position: Column of the prompt whose next token is meant, one for all or
      one for each prompt; negative counts from each row's end.
  """

  position: Position = dataclasses.field(default=-1, kw_only=True)

  @abc.abstractmethod
  def resolve(self, lm: LanguageModel) -> ResolvedTarget:
    """The target as arrays.

    Raises:
      GemmaScopeError: If the model has no such token, site or element.
    """


def same_count(rows: int | None, batch: int) -> None:
  """Raises TextError if a target is for another number of prompts."""
  if rows is not None and rows != batch:
    raise TextError(
      "A target with one token for each prompt needs as many prompts.",
      received=f"tokens for {rows} prompts, and {batch} prompts",
      instead="a single token for all, or one for each prompt",
    )


def linearised(
  f: Callable[[Float[Array, "batch outputs"]], Float[Array, " batch"]],
  x: Float[Array, "batch outputs"],
) -> Float[Array, " batch"]:
  """f(x), differentiated as the linear function that touches f at x.

  The first derivative is that of f. Under relevance rules the target is then
  no part of the model: its relevance of output i is x_i df/dx_i, whatever f is
  made of.

  Args:
    f: From rows of outputs to one number each.
    x: Outputs.
  """
  held = jax.lax.stop_gradient(x)
  slope = jax.grad(lambda v: f(v).sum())(held)
  return same_value(f(held), jnp.sum(x * slope, axis=-1))
