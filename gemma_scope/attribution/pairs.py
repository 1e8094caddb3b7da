"""Pairs of prompts that differ in what is being traced.

Patching carries activations of one prompt into a run of the other, position by
position, so both must have the same number of tokens.

    source   the run that activations are taken from
    base     the run that they are put into

Denoising: source clean, base corrupt. Noising: the other way round.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int
import numpy as np

from gemma_scope.activations.tokens import Input, TokenBatch
from gemma_scope.attribution.evaluate import ask
from gemma_scope.attribution.objectives import ResolvedTarget, Target
from gemma_scope.attribution.rows import Rows
from gemma_scope.errors import TextError
from gemma_scope.model.language_model import LanguageModel


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Pairs:
  """Prompts two by two, with the target measured in the patched run.

  Attributes:
    source: The prompts that activations are taken from.
    base: The prompts that they are put into; segments and columns as there.
    target: What is measured.
  """

  source: Rows
  base: Rows
  target: ResolvedTarget

  def take(self, index: Int[Array, " rows"]) -> "Pairs":
    """Some of the pairs, in any order, also repeated."""
    return Pairs(
      self.source.take(index), self.base.take(index), self.target.take(index)
    )

  def swapped(self) -> "Pairs":
    """Source and base exchanged: noising for denoising."""
    return Pairs(self.base, self.source, self.target)


def to_pairs(
  lm: LanguageModel, source: Input, base: Input, target: Target
) -> tuple[TokenBatch, TokenBatch, Pairs]:
  """A user's pairs of prompts and target, as arrays that fit each other.

  Args:
    lm: The model.
    source: Text, texts or token ids that activations are taken from.
    base: The same of the run that they are put into.
    target: What is measured.

  Returns:
    The tokens of the sources, those of the bases, and the pairs.

  Raises:
    TextError: If the two of a pair have different numbers of tokens.
  """
  from_batch, source_rows, resolved = ask(lm, source, target)
  into_batch, base_rows, _ = ask(lm, base, target)
  ours, theirs = from_batch.lengths, into_batch.lengths
  if ours.shape != theirs.shape or (ours != theirs).any():
    raise TextError(
      "Both prompts of a pair must have the same number of tokens.",
      received=_lengths(lm, from_batch, into_batch),
      instead="prompts that differ token for token, such as names of one token",
    )
  width = max(source_rows.ids.shape[1], base_rows.ids.shape[1])
  source_rows, base_rows = (_padded(r, width) for r in (source_rows, base_rows))
  return from_batch, into_batch, Pairs(source_rows, base_rows, resolved)


def _padded(rows: Rows, width: int) -> Rows:
  """Prompts with padding up to `width` columns."""
  pad = ((0, 0), (0, width - rows.ids.shape[1]))
  return dataclasses.replace(
    rows,
    ids=jnp.pad(rows.ids, pad),
    segment_ids=jnp.pad(rows.segment_ids, pad),
  )


def _lengths(lm: LanguageModel, a: TokenBatch, b: TokenBatch) -> str:
  """The first pair that does not fit, token by token."""
  if len(a.lengths) != len(b.lengths):
    return f"{len(a.lengths)} and {len(b.lengths)} prompts"
  row = int(np.flatnonzero(a.lengths != b.lengths)[0])
  texts = (" | ".join(x.pieces(lm.tokenizer)[row]) for x in (a, b))
  return " and ".join(
    f"{length} tokens ({text})"
    for length, text in zip((a.lengths[row], b.lengths[row]), texts)
  )
