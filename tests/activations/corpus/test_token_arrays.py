"""Token arrays: rows, ends, BOS; memory maps that travel."""

import pickle

import numpy as np
import pytest

from gemma_scope.activations.corpus.token_arrays import TokenDocuments
from gemma_scope.errors import TextError

DOCUMENTS = [[2, 300, 301], [2, 302], [2, 303, 304, 305]]
FLAT = np.concatenate([np.asarray(d) for d in DOCUMENTS])
ENDS = np.cumsum([len(d) for d in DOCUMENTS])


def check(found, expected=DOCUMENTS):
  assert [found[i].tolist() for i in range(len(found))] == expected
  assert found[0].dtype == np.int32
  again = pickle.loads(pickle.dumps(found))
  assert [again[i].tolist() for i in range(len(again))] == expected


@pytest.mark.parametrize("dtype", ["<u4", "<i8", "<u2"])
def test_a_flat_array_is_cut_before_every_bos(tmp_path, dtype):
  np.save(tmp_path / "ids.npy", FLAT.astype(dtype))
  found = TokenDocuments(tmp_path / "ids.npy")
  check(found)
  assert isinstance(found._ids, np.memmap)
  assert found.num_tokens == len(FLAT)


def test_a_map_is_not_sent_along(tmp_path):
  np.save(tmp_path / "ids.npy", np.tile(FLAT, 1000))
  found = TokenDocuments(tmp_path / "ids.npy", [9000])
  assert len(found[0]) == 9000
  assert len(pickle.dumps(found)) < 1000


def test_a_flat_array_is_cut_at_its_ends(tmp_path):
  np.save(tmp_path / "ids.npy", FLAT)
  check(
    TokenDocuments(tmp_path / "ids.npy", [4, 4, 9]),
    [[2, 300, 301, 2], [], [302, 2, 303, 304, 305]],
  )
  np.savez(tmp_path / "ids.npz", tokens=FLAT, ends=ENDS)
  check(TokenDocuments(tmp_path / "ids.npz"))
  np.savez_compressed(tmp_path / "ids.npz", ids=FLAT)
  check(TokenDocuments(tmp_path / "ids.npz"))


def test_text_before_the_first_bos_is_a_document(tmp_path):
  np.save(tmp_path / "ids.npy", np.asarray([7, 8, 2, 9]))
  check(TokenDocuments(tmp_path / "ids.npy"), [[7, 8], [2, 9]])
  np.save(tmp_path / "ids.npy", np.asarray([7, 8, 9]))
  check(TokenDocuments(tmp_path / "ids.npy"), [[7, 8, 9]])


def test_rows_are_documents_without_their_padding(tmp_path):
  rows = np.zeros((4, 5), np.int32)
  for i, document in enumerate(DOCUMENTS):
    rows[i, : len(document)] = document
  rows[3] = [5, 0, 6, 7, 8]  # a 0 inside a row is an id
  np.save(tmp_path / "ids.npy", rows)
  check(TokenDocuments(tmp_path / "ids.npy"), [*DOCUMENTS, [5, 0, 6, 7, 8]])


def test_a_raw_file_is_mapped(tmp_path):
  FLAT.astype("<u4").tofile(tmp_path / "ids.bin")
  check(TokenDocuments(tmp_path / "ids.bin", ENDS, raw="<u4"))
  (tmp_path / "ids.bin").write_bytes(b"")
  empty = TokenDocuments(tmp_path / "ids.bin", ENDS[:0], raw="<u4")
  assert (len(empty), empty.num_tokens) == (0, 0)


def test_origin_counts(tmp_path):
  np.save(tmp_path / "ids.npy", FLAT)
  origin = TokenDocuments(tmp_path / "ids.npy").origin
  assert (origin["tokens"], origin["documents"]) == (9, 3)


def test_unusable_arrays_are_refused(tmp_path):
  np.save(tmp_path / "floats.npy", np.ones(3))
  with pytest.raises(TextError, match=r"whole numbers[\s\S]*float64\[3\]"):
    TokenDocuments(tmp_path / "floats.npy")
  np.savez(tmp_path / "other.npz", other=FLAT)
  with pytest.raises(TextError, match=r"no array of token ids[\s\S]*other"):
    TokenDocuments(tmp_path / "other.npz")
  np.save(tmp_path / "ids.npy", FLAT)
  for ends in ([3, 2], [3, 10], [-1, 3]):
    with pytest.raises(TextError, match=r"do not fit[\s\S]*9 tokens"):
      TokenDocuments(tmp_path / "ids.npy", ends)
