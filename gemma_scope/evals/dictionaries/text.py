"""Held-out text as batches in which it is known which tokens count."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from gemma_scope.activations.corpus.packed_batch import PackedBatch
from gemma_scope.activations.tokens import PAD, TokenBatch, to_tokens
from gemma_scope.errors import TextError
from gemma_scope.model.language_model import LanguageModel

Batches = Iterable[PackedBatch | TokenBatch] | TokenBatch | str | Any


def to_batches(lm: LanguageModel, given: Batches) -> Iterator[PackedBatch]:
  """Batches as they are; texts and rows of tokens as one batch.

  Args:
    lm: The model the tokens are for.
    given: Packed batches, rows of tokens, a text or several texts.

  Raises:
    TextError: There is nothing in it.
  """
  if isinstance(given, PackedBatch):
    given = [given]
  if isinstance(given, str | TokenBatch) or _are_texts(given):
    given = [to_tokens(lm, given).to_bucket()]
  empty = True
  for batch in given:
    empty = False
    if isinstance(batch, TokenBatch):
      batch = to_packed(lm, batch)
    yield batch
  if empty:
    raise TextError(
      "There is no text to evaluate on.",
      received="no batch",
      instead="packed batches of held-out tokens, or some texts",
    )


def to_packed(lm: LanguageModel, batch: TokenBatch) -> PackedBatch:
  """Rows of tokens of which all count but BOS, EOS and padding."""
  special = [lm.tokenizer.bos_id, lm.tokenizer.eos_id, PAD]
  counted = (batch.segment_ids != 0) & ~np.isin(batch.ids, special)
  return PackedBatch(
    batch.ids.astype(np.int32), batch.segment_ids.astype(np.int32), counted
  )


def cut_rows(batch: PackedBatch, rows: int) -> Iterator[PackedBatch]:
  """Parts of `rows` rows, the last one filled up with padding.

  One shape serves all, so that programs are compiled once.
  """
  for start in range(0, len(batch.ids), rows):
    part = batch[start : start + rows]
    missing = rows - len(part.ids)
    if missing:
      width = batch.ids.shape[1]
      fill = PackedBatch(
        **{
          n: np.zeros((missing, width), a.dtype) for n, a in part.arrays.items()
        }
      )
      part = PackedBatch.concatenate([part, fill])
    yield part


def _are_texts(given: Any) -> bool:
  several = isinstance(given, list | tuple) and len(given) > 0
  return several and all(isinstance(one, str) for one in given)
