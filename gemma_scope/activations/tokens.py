"""Text or token ids to a batch of rows, with padding marked.

Text gets BOS in front and rows of unequal length are padded on the right;
token ids given as numbers are used as they are. Does not pack documents.
"""

from collections.abc import Sequence
import dataclasses
from typing import Any

import jax
import numpy as np
from penzai import pz

from gemma_scope import axes
from gemma_scope.errors import TextError
from gemma_scope.model.language_model import LanguageModel
from gemma_scope.model.tokenizer import Encoding, Tokenizer

Input = str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]] | Any

PAD = 0
BUCKET = 16  # text is padded to multiples of this, so programs are reused


@dataclasses.dataclass(frozen=True)
class TokenBatch:
  """Rows of token ids.

  Attributes:
    ids: [batch, seq] int32, padding 0 on the right.
    segment_ids: [batch, seq] int32; 0 is padding, other numbers sequences.
    exact: Whether the ids were given as numbers, to be run at their shape.
  """

  ids: np.ndarray
  segment_ids: np.ndarray
  exact: bool

  @property
  def lengths(self) -> np.ndarray:
    """[batch] number of tokens of each row that are not padding."""
    return (self.segment_ids != 0).sum(axis=1)

  @property
  def sequences(self) -> list[np.ndarray]:
    """Token ids of every sequence, padding left out."""
    found = []
    for ids, segments in zip(self.ids, self.segment_ids):
      numbers = dict.fromkeys(segments[segments != 0].tolist())
      found += [ids[segments == number] for number in numbers]
    return found

  @property
  def width(self) -> int:
    """Number of columns, padding of the longest row excluded."""
    return self.ids.shape[1]

  def row(self, index: int) -> "TokenBatch":
    """One row as a batch of its own, its padding cut off."""
    length = int(self.lengths[index])
    one = slice(index, index + 1)
    return TokenBatch(
      self.ids[one, :length], self.segment_ids[one, :length], self.exact
    )

  def pieces(self, tokenizer: Tokenizer) -> tuple[tuple[str, ...], ...]:
    """[batch][seq] text of every token, padding left out."""
    return tuple(
      tuple(tokenizer.pieces(row[:length]))
      for row, length in zip(self.ids, self.lengths)
    )

  def to_bucket(self) -> "TokenBatch":
    """Padded to a multiple of `BUCKET`, unless the ids are exact."""
    extra = 0 if self.exact else -self.width % BUCKET
    pad = ((0, 0), (0, extra))
    return TokenBatch(
      np.pad(self.ids, pad), np.pad(self.segment_ids, pad), self.exact
    )


def to_tokens(
  lm: LanguageModel, given: Input, segment_ids: np.ndarray | None = None
) -> TokenBatch:
  """Makes rows of tokens from whatever a user has.

  Args:
    lm: The model the tokens are for.
    given: A text, several texts, the ids of one sequence, or rows of ids (an
      array, a NamedArray {batch, seq}, or lists of unequal length). A
      `TokenBatch` is returned as it is.
    segment_ids: For packed rows of ids, the sequence of each token, counted
      from 1; 0 is padding. By default a row is one sequence, and ids 0 at its
      end are padding.

  Raises:
    TextError: If there is nothing to run, an id is not in the vocabulary, or
      a sequence is longer than the model's context.
  """
  if not isinstance(lm, LanguageModel):
    raise TextError(
      "A loaded language model is needed, with its tokenizer.",
      received=f"a {type(lm).__name__}",
      instead="lm = gs.load(…); an edited model goes in as lm.replace(model)",
    )
  if isinstance(given, TokenBatch):
    return given
  if isinstance(given, Encoding):
    given = np.asarray(given.ids)
  rows, exact = _rows(lm, given)
  lengths = [len(row) for row in rows]
  if not lengths or min(lengths) == 0:
    raise TextError(
      "There are no tokens to run.",
      received=f"{given!r:.60}",
      instead='some text, such as "The capital of France is"',
    )
  ids = np.zeros((len(rows), max(lengths)), np.int64)
  for i, row in enumerate(rows):
    ids[i, : len(row)] = row
  _check_ids(ids, lm)
  ids = ids.astype(np.int32)
  return TokenBatch(ids, _segments(ids, lengths, segment_ids, exact), exact)


def _rows(lm: LanguageModel, given: Input) -> tuple[list[Any], bool]:
  """One list of ids a row, and whether they were given as numbers."""
  if isinstance(given, str):
    return [_encode(lm, given)], False
  if isinstance(given, pz.nx.NamedArray | pz.nx.NamedArrayView):
    names = (axes.BATCH, axes.SEQ)
    given = given.unwrap(*[n for n in names if n in given.named_shape])
  if isinstance(given, np.ndarray | jax.Array):
    return _array_rows(np.asarray(given)), True
  if isinstance(given, Sequence) and given:
    if all(isinstance(item, str) for item in given):
      return [_encode(lm, str(item)) for item in given], False
    if any(isinstance(i, Sequence) or np.ndim(i) for i in given):
      rows = [np.asarray(item) for item in given]
      return [r for row in rows for r in _array_rows(row)], True
    return _array_rows(np.asarray(given)), True
  return [], True


def _encode(lm: LanguageModel, text: str) -> list[int]:
  if not text:
    raise TextError(
      "The prompt is empty.",
      received='""',
      instead='some text, such as "The capital of France is"',
    )
  return lm.tokenizer.encode(text)


def _array_rows(ids: np.ndarray) -> list[np.ndarray]:
  if ids.size and not np.issubdtype(ids.dtype, np.integer):
    raise TextError(
      "Token ids are whole numbers.",
      received=f"an array of {ids.dtype}, shape {ids.shape}",
      instead="text, or an integer array [seq] or [batch, seq]",
    )
  if ids.ndim not in (1, 2):
    raise TextError(
      "Token ids come as one row or as rows of a batch.",
      received=f"an array of shape {ids.shape}",
      instead="an integer array of shape [seq] or [batch, seq]",
    )
  return list(np.atleast_2d(ids))


def _check_ids(ids: np.ndarray, lm: LanguageModel) -> None:
  config = lm.config
  if ids.min() < 0 or ids.max() >= config.vocab_size:
    raise TextError(
      "A token id is not in the vocabulary.",
      received=f"ids from {ids.min()} to {ids.max()}",
      instead=f"ids from 0 to {config.vocab_size - 1}",
    )
  if ids.shape[1] > config.max_context:
    raise TextError(
      "The prompt is longer than the model's context.",
      received=f"{ids.shape[1]:,} tokens",
      instead=f"at most {config.max_context:,} tokens for {lm.name}; "
      "cut the text",
    )


def _segments(
  ids: np.ndarray,
  lengths: list[int],
  given: np.ndarray | None,
  exact: bool,
) -> np.ndarray:
  if given is not None:
    return _checked_segments(given, ids.shape)
  columns = np.arange(ids.shape[1])[None, :]
  segments = (columns < np.asarray(lengths)[:, None]).astype(np.int32)
  if exact:
    later = np.flip(np.cumsum(np.flip(ids, 1), 1), 1)
    segments *= later > 0
  return segments


def _checked_segments(given: Any, shape: tuple[int, ...]) -> np.ndarray:
  """Segment ids as [batch, seq] int32.

  Raises:
    TextError: If they are no whole numbers from 0, have another shape, or a
      sequence comes back after another has begun.
  """
  given = np.atleast_2d(np.asarray(given))
  whole = np.issubdtype(given.dtype, np.integer) and (given >= 0).all()
  if given.shape != shape or not whole or _comes_back(given):
    raise TextError(
      "Segment ids number the sequences of each row, one after the other.",
      received=f"{given.dtype} of shape {given.shape} for tokens {shape}: "
      f"{given[0][:12].tolist()} …",
      instead="one whole number for each token, such as [1, 1, 2, 2, 0]; 0 is "
      "padding",
    )
  return given.astype(np.int32)


def _comes_back(segments: np.ndarray) -> bool:
  """Whether any row returns to a sequence that it had left."""
  for row in segments:
    starts = row[np.flatnonzero(np.diff(row, prepend=-1))]
    starts = starts[starts != 0]
    if len(starts) != len(set(starts.tolist())):
      return True
  return False
