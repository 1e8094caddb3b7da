"""Packing against a slow packer that lays token after token."""

import numpy as np
import pytest

from gemma_scope.activations.corpus.options import CHAT_PREFIX, PackingOptions
from gemma_scope.activations.corpus.packing import counted_mask, pack

LENGTHS = [5, 0, 30, 1, 9, 9, 2, 61, 3]
OPTIONS = [
  PackingOptions(seq_len=12, min_piece=1),
  PackingOptions(seq_len=12, min_piece=4),
  PackingOptions(seq_len=16, min_piece=30),
  PackingOptions(seq_len=100),
  PackingOptions(seq_len=9, prefix=CHAT_PREFIX, min_piece=2),
  PackingOptions(seq_len=7, prefix=(), min_piece=2),
]


def documents(lengths=LENGTHS, seed=0):
  rng = np.random.default_rng(seed)
  return [rng.integers(108, 512, n) for n in lengths]


def slow_rows(docs, options):
  """Rows as lists of (id, piece, document, offset), without padding."""
  rows, row = [], []
  for number, document in enumerate(docs):
    begin = True
    for offset, token in enumerate(document.tolist()):
      left = len(document) - offset
      room = options.seq_len - len(row)
      if begin and row:
        room -= len(options.prefix)
        if room < 1 or room < min(left, options.min_piece):
          rows, row = [*rows, row], []
      elif not begin and room == 0:
        rows, row, begin = [*rows, row], [], True
      if begin:
        piece = row[-1][1] + 1 if row else 1
        row += [(t, piece, number, -1) for t in options.prefix]
        begin = False
      row.append((token, piece, number, offset))
  return [*rows, row] if row else rows


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: f"{o.seq_len}")
def test_rows_are_those_of_the_slow_packer(options):
  docs = documents()
  found = pack(docs, options)
  expected = slow_rows(docs, options)
  assert found.shape == (len(expected), options.seq_len)
  padding = (0, 0, -1, -1)
  for i, row in enumerate(expected):
    whole = row + [padding] * (options.seq_len - len(row))
    arrays = (found.ids, found.segment_ids, found.documents, found.offsets)
    for array, values in zip(arrays, zip(*whole)):
      np.testing.assert_array_equal(array[i], values)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: f"{o.seq_len}")
def test_every_token_of_every_document_comes_once(options):
  docs = documents()
  found = pack(docs, options, numbers=range(100, 100 + len(docs)))
  assert found.num_counted == sum(LENGTHS)
  for number, document in enumerate(docs, start=100):
    mine = found.counted & (found.documents == number)
    order = np.argsort(found.offsets[mine])
    np.testing.assert_array_equal(found.ids[mine][order], document)


def test_long_documents_fill_rows():
  found = pack(documents([1000]), PackingOptions(seq_len=11))
  assert found.shape == (100, 11)
  assert (found.segment_ids == 1).all()
  assert (found.ids[:, 0] == 2).all()


def test_what_a_document_brings_of_the_prefix_is_taken_off():
  options = PackingOptions(seq_len=12)
  bare = pack([np.asarray([300, 301])], options)
  np.testing.assert_array_equal(
    pack([np.asarray([2, 300, 301])], options).ids, bare.ids
  )
  chat = PackingOptions(seq_len=12, prefix=CHAT_PREFIX)
  for front in ((), (2,), CHAT_PREFIX):
    found = pack([np.asarray([*front, 300, 301])], chat)
    assert found.ids[0, :7].tolist() == [*CHAT_PREFIX, 300, 301, 0]


def test_bos_eos_padding_and_chat_prefix_do_not_count():
  chat = [*CHAT_PREFIX, 300, 106, 107, 1]
  other = [2, 105, 2364, 301, 107]  # no user's turn: only BOS is left out
  ids = np.asarray([chat + other + [0, 0]])
  segments = np.asarray([[1] * 8 + [2] * 5 + [0] * 2])
  found = counted_mask(ids, segments, (0, 1, 2))
  expected = [0, 0, 0, 0, 1, 1, 1, 0, 0, 1, 1, 1, 1, 0, 0]
  np.testing.assert_array_equal(found[0], np.asarray(expected, bool))
  # Inside a piece the same ids are text.
  inside = np.asarray([[2, 300, *CHAT_PREFIX, 300]])
  found = counted_mask(inside, np.ones_like(inside), (2,))
  assert found[0].tolist() == [False, True, False, True, True, True, True]
  assert counted_mask(ids[:, :3], segments[:, :3], ()).all()


def test_a_written_out_chat_loses_its_prefix_once():
  found = pack([np.asarray([*CHAT_PREFIX, 300])], PackingOptions(seq_len=8))
  assert found.ids[0, :5].tolist() == [*CHAT_PREFIX, 300]
  assert found.counted[0].tolist() == [False] * 4 + [True] + [False] * 3


def test_eos_follows_documents_not_pieces():
  options = PackingOptions(seq_len=6, eos=True, min_piece=1)
  found = pack(documents([7, 2]), options)
  assert (found.ids == 1).sum() == 2
  assert found.num_counted == 9
  assert not found.counted[found.ids == 1].any()
  ended = pack([np.asarray([300, 1])], options)
  assert (ended.ids == 1).sum() == 1


def test_no_text_gives_no_rows():
  assert pack([], PackingOptions()).shape == (0, 1024)
  assert pack([np.zeros(0, int)], PackingOptions()).num_counted == 0


def test_no_prefix_counts_whatever_it_is():
  options = PackingOptions(seq_len=10, prefix=(2, 301))
  found = pack([np.asarray([301, 302]), np.asarray([303])], options)
  assert found.ids[0].tolist() == [2, 301, 301, 302, 2, 301, 303, 0, 0, 0]
  assert found.counted[0].nonzero()[0].tolist() == [2, 3, 6]
