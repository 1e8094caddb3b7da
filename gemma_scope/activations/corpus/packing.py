"""Documents to rows: pieces laid one after the other, none mixed.

The documents of a chunk fill rows in their order. One that does not fit into
what is left of a row is cut there and goes on in the next row, so that rows are
full. Every piece, also one from the middle of a document, begins with the
prefix (BOS): the model expects it, and knows nothing of the pieces before. No
token of a document is left out or comes twice.

The space left in a row is wasted where fewer than `min_piece` tokens fit, and
at the end of a chunk.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from gemma_scope.activations.corpus.options import (
  CHAT_PREFIX,
  EOS,
  PackingOptions,
)
from gemma_scope.activations.corpus.packed_batch import PackedBatch


class Piece(NamedTuple):
  """Where a stretch of a document lies.

  Attributes:
    row: The row.
    column: Column of the first token of the prefix.
    segment: Number of the piece in its row, from 1.
    document: Which of the documents.
    start: Place of its first token in the document.
    length: Number of tokens, without the prefix.
  """

  row: int
  column: int
  segment: int
  document: int
  start: int
  length: int


def pieces_of(
  lengths: Sequence[int], options: PackingOptions
) -> Iterator[Piece]:
  """Where each document goes.

  Args:
    lengths: Tokens of each document, without prefix. Empty ones get no piece.
    options: Row length, prefix and smallest piece.

  Yields:
    The pieces, row by row.
  """
  front = len(options.prefix)
  row, column, segment = 0, 0, 0
  for document, length in enumerate(lengths):
    start = 0
    while start < length:
      left = length - start
      room = options.seq_len - column - front
      if column and room < min(left, options.min_piece):
        row, column, segment = row + 1, 0, 0
        room = options.seq_len - front
      take, segment = min(left, room), segment + 1
      yield Piece(row, column, segment, document, start, take)
      column += front + take
      start += take


def pack(
  documents: Sequence[np.ndarray],
  options: PackingOptions,
  numbers: Sequence[int] | None = None,
) -> PackedBatch:
  """Packs token ids of documents into as many rows as they need.

  Args:
    documents: Token ids of each document. What they begin with of the prefix
      (BOS, say) is taken off, for every piece gets its own.
    options: How to pack.
    numbers: Index of each document in its corpus, for `documents` of the
      result; by default their place in the list.

  Returns:
    The rows, [rows, seq_len]; none if all documents are empty.
  """
  texts = [_bare(document, options) for document in documents]
  pieces = list(pieces_of([len(text) for text in texts], options))
  shape = (pieces[-1].row + 1 if pieces else 0, options.seq_len)
  ids, segments = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
  owners, offsets = np.full(shape, -1, np.int32), np.full(shape, -1, np.int32)
  names = range(len(texts)) if numbers is None else numbers
  for row, column, segment, document, start, length in pieces:
    text = column + len(options.prefix)
    end = text + length
    ids[row, column:text] = options.prefix
    ids[row, text:end] = texts[document][start : start + length]
    segments[row, column:end] = segment
    owners[row, column:end] = names[document]
    offsets[row, text:end] = np.arange(start, start + length)
  counted = (offsets >= 0) & counted_mask(ids, segments, options.uncounted)
  return PackedBatch(ids, segments, counted, owners, offsets)


def counted_mask(
  ids: np.ndarray, segment_ids: np.ndarray, uncounted: Sequence[int]
) -> np.ndarray:
  """Which tokens count: no padding, no id of `uncounted`, no chat prefix.

  Args:
    ids: Token ids, [rows, seq].
    segment_ids: Piece of each token, [rows, seq]; 0 is padding.
    uncounted: Ids that never count.

  Returns:
    [rows, seq] bool.
  """
  counted = (segment_ids > 0) & ~np.isin(ids, uncounted)
  before = np.pad(segment_ids[:, :-1], ((0, 0), (1, 0)))
  starts = (segment_ids > 0) & (segment_ids != before)
  size = len(CHAT_PREFIX)
  if ids.shape[1] < size:
    return counted
  rows, columns = np.nonzero(starts[:, : 1 - size])
  fronts = ids[rows[:, None], columns[:, None] + np.arange(size)[None]]
  chats = (fronts == np.asarray(CHAT_PREFIX)[None]).all(axis=1)
  for row, column in zip(rows[chats], columns[chats]):
    counted[row, column : column + size] = False
  return counted


def _bare(document: np.ndarray, options: PackingOptions) -> np.ndarray:
  """The ids of a document without the prefix it may bring, and with <eos>."""
  ids = np.asarray(document)
  whole, first = options.prefix, options.prefix[:1]
  for front in (whole, first):
    if front and tuple(ids[: len(front)].tolist()) == front:
      ids = ids[len(front) :]
      break
  if options.eos and len(ids) and ids[-1] != EOS:
    ids = np.append(ids, EOS)
  return ids
