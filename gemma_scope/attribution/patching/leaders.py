"""The unpatched runs, which lead the patched ones through the layers."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
from penzai import pz

from gemma_scope import axes
from gemma_scope.attribution.pairs import Pairs
from gemma_scope.model import gemma
from gemma_scope.model.placement import Placement
from gemma_scope.sites import info_of

STREAM = (axes.BATCH, axes.SEQ, axes.EMBEDDING)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Leaders:
  """Source and base run of every pair: the sources first, then the bases.

  Attributes:
    stream: The residual streams, {batch, seq, embedding}.
    placement: Where their tokens stand.
    columns: The target's column in each row.
  """

  stream: pz.nx.NamedArray
  placement: Placement
  columns: Int[Array, " rows"]

  @property
  def pairs(self) -> int:
    """Number of pairs."""
    return self.columns.shape[0] // 2

  def base(self, pair: Int[Array, " rows"]) -> "Leaders":
    """The base runs of some pairs, row by row."""
    index = self.pairs + pair
    return Leaders(
      take_rows(self.stream, index),
      jax.tree.map(lambda a: a[index], self.placement),
      self.columns[index],
    )


@jax.jit
def start(model: gemma.Gemma, pairs: Pairs) -> Leaders:
  """Embeds the prompts of all pairs."""
  both = jax.tree.map(
    lambda a, b: jnp.concatenate([a, b]), pairs.source, pairs.base
  )
  placement = gemma.place(model, both.ids, both.segment_ids)
  stream, _ = gemma.embed(model, both.ids, placement)
  stream = pz.nx.wrap(stream.unwrap(*STREAM), *STREAM)
  return Leaders(stream, placement, both.columns)


def take_rows(
  value: pz.nx.NamedArray, index: Int[Array, " rows"]
) -> pz.nx.NamedArray:
  """Some rows of the batch."""
  names = (axes.BATCH, *(n for n in value.named_axes if n != axes.BATCH))
  return pz.nx.wrap(value.unwrap(*names)[index], *names)


def at_columns(
  value: pz.nx.NamedArray, columns: Int[Array, " rows"], name: str
) -> Float[Array, "rows ..."]:
  """A site's value at each row's column, other axes in the site's order."""
  rows = jnp.arange(columns.shape[0])
  return value.unwrap(*in_front(name))[rows, columns]


def in_front(name: str) -> tuple[str, ...]:
  """The axes of a site, batch and seq first."""
  front = (axes.BATCH, axes.SEQ)
  return *front, *(n for n in info_of(name).axes if n not in front)
