"""A target's value as a function of offsets added at some sites."""

from collections.abc import Mapping
import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np
from penzai import pz

from gemma_scope import axes
from gemma_scope.activations.tokens import TokenBatch
from gemma_scope.attribution.objectives import ResolvedTarget
from gemma_scope.errors import TextError
from gemma_scope.model import gemma
from gemma_scope.model.placement import placement_of, places_of
from gemma_scope.sites import Site

Values = dict[Site, pz.nx.NamedArray]
_STREAM = (axes.BATCH, axes.SEQ, axes.EMBEDDING)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rows:
  """Prompts, and the column of each whose next token is meant.

  Attributes:
    ids: Token ids.
    segment_ids: The sequence of each token; 0 is padding.
    columns: The target's column in each row.
  """

  ids: Int[Array, "batch seq"]
  segment_ids: Int[Array, "batch seq"]
  columns: Int[Array, " batch"]


def to_rows(batch: TokenBatch, position: int) -> Rows:
  """Adds to prompts the column that `position` means in each.

  Args:
    batch: The prompts.
    position: Column; negative counts from each row's last token.

  Raises:
    TextError: If a row has no such token.
  """
  lengths = batch.lengths
  columns = (
    lengths + position if position < 0 else np.full_like(lengths, position)
  )
  if (columns < 0).any() or (columns >= lengths).any():
    raise TextError(
      "A prompt has no token at the target's position.",
      received=f"position {position}, prompts of {lengths.tolist()} tokens",
      instead="a position inside every prompt, such as -1 for the last token",
    )
  padded = batch.to_bucket()
  return Rows(
    jnp.asarray(padded.ids),
    jnp.asarray(padded.segment_ids),
    jnp.asarray(columns, jnp.int32),
  )


def evaluate(
  model: gemma.Gemma,
  rows: Rows,
  target: ResolvedTarget,
  offsets: Mapping[Site, pz.nx.NamedArray],
) -> tuple[Float[Array, " batch"], Values]:
  """The target's value for each row, and what taps recorded.

  Args:
    model: A model with an `Offset` at every site of `offsets`.
    rows: The prompts.
    target: What is explained.
    offsets: What is added at each site.
  """
  placement = placement_of(places_of(rows.segment_ids), model.config)
  residual, taps = gemma.run(model, rows.ids, rows.segment_ids, offsets)
  normed, seen = gemma.apply_final_norm(model, residual, placement, offsets)
  chosen = jnp.take_along_axis(
    normed.unwrap(*_STREAM), rows.columns[:, None, None], axis=1
  )[:, 0]
  return target.value(chosen, model.table.data_array), taps | seen


def zero_offsets(
  model: gemma.Gemma,
  rows: Rows,
  target: ResolvedTarget,
  sites: tuple[Site, ...],
) -> Values:
  """An offset of zero for each site, in the site's dtype.

  Args:
    model: A model with a tap, and nothing that needs an input, at each site.
    rows: The prompts.
    target: What is explained.
    sites: The sites.
  """
  _, shapes = jax.eval_shape(lambda: evaluate(model, rows, target, {}))
  return {
    site: jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes[site])
    for site in sites
  }
