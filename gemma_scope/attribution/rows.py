"""Prompts as arrays, and one forward pass to the column that is explained."""

from collections.abc import Mapping
import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np
from penzai import pz

from gemma_scope import axes
from gemma_scope.activations.tokens import TokenBatch
from gemma_scope.errors import TextError
from gemma_scope.model import gemma
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

  def take(self, index: Int[Array, " rows"]) -> "Rows":
    """Some of the prompts, in any order, also repeated."""
    return jax.tree.map(lambda a: a[index], self)


def to_rows(batch: TokenBatch, position: int | tuple[int, ...]) -> Rows:
  """Adds to prompts the column that `position` means in each.

  Args:
    batch: The prompts.
    position: Column, one for all or one for each; negative counts from each
      row's last token.

  Raises:
    TextError: If a row has no such token.
  """
  lengths = batch.lengths
  wanted = np.asarray(position)
  if wanted.ndim and wanted.shape != lengths.shape:
    raise TextError(
      "A target with one position for each prompt needs as many prompts.",
      received=f"{len(wanted)} positions, {len(lengths)} prompts",
      instead="a single position for all, or one for each prompt",
    )
  columns = np.where(wanted < 0, lengths + wanted, wanted)
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


def run_rows(
  model: gemma.Gemma,
  rows: Rows,
  inputs: Mapping[Site, pz.nx.NamedArray] | None = None,
) -> tuple[Float[Array, "batch embedding"], Values]:
  """One forward pass; the final norm's output at each row's column.

  Args:
    model: The model, perhaps with taps and edits.
    rows: The prompts.
    inputs: Arrays for the edits, by site.

  Returns:
    The final norm's output there, and what taps recorded.
  """
  placement = gemma.place(model, rows.ids, rows.segment_ids)
  residual, taps = gemma.run(model, rows.ids, rows.segment_ids, inputs)
  normed, seen = gemma.apply_final_norm(model, residual, placement, inputs)
  chosen = jnp.take_along_axis(
    normed.unwrap(*_STREAM), rows.columns[:, None, None], axis=1
  )[:, 0]
  return chosen, taps | seen
