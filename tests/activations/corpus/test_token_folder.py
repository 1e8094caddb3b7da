"""Folders of tokens: what was written comes back; damage is found."""

import json
import pickle

import pytest

from gemma_scope import testing
from gemma_scope.activations.corpus import token_folder
from gemma_scope.activations.corpus.corpus import Corpus
from gemma_scope.activations.corpus.token_folder import TokenFolder
from gemma_scope.activations.corpus.token_writer import corpus_to_tokens
from gemma_scope.errors import TextError

DOCUMENTS = [" the capital", "", [2, 300], "Mary"]


@pytest.fixture
def folder(tmp_path):
  tokenizer = testing.tiny_lm().tokenizer
  corpus_to_tokens(Corpus.of(DOCUMENTS), tokenizer, tmp_path / "tokens")
  return tmp_path / "tokens"


def test_documents_come_back(folder):
  tokenizer = testing.tiny_lm().tokenizer
  encoded = [
    tokenizer.encode(d, bos=False) if isinstance(d, str) else d
    for d in DOCUMENTS
  ]
  found = TokenFolder(folder)
  for _ in range(2):
    assert [found[i].tolist() for i in range(len(found))] == encoded
    found = pickle.loads(pickle.dumps(found))
  found.verify()
  assert found.num_tokens == sum(map(len, encoded))
  assert found.origin["documents"] == 4
  assert found.manifest["manifest"]["config"]["origin"]["documents"] == 4


def test_a_file_cut_short_is_found_at_once(folder):
  for name in ("tokens.bin", "ends.bin"):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:-1])
    with pytest.raises(TextError, match=rf"not as long[\s\S]*{name}"):
      TokenFolder(folder)
    (folder / name).write_bytes(data)
  (folder / "ends.bin").unlink()
  with pytest.raises(TextError, match="not as long"):
    TokenFolder(folder)


def test_a_flipped_bit_is_found_by_verify(folder):
  data = bytearray((folder / "tokens.bin").read_bytes())
  data[4] ^= 1
  (folder / "tokens.bin").write_bytes(data)
  with pytest.raises(TextError, match=r"damaged[\s\S]*tokens\.bin"):
    TokenFolder(folder).verify()


def test_other_folders_are_refused(folder, tmp_path):
  assert token_folder.is_token_folder(folder)
  assert not token_folder.is_token_folder(tmp_path)
  with pytest.raises(TextError, match="no folder of tokens"):
    TokenFolder(tmp_path)
  manifest = json.loads((folder / "manifest.json").read_text())
  (folder / "manifest.json").write_text(json.dumps(manifest | {"version": 2}))
  with pytest.raises(TextError, match=r"version 2[\s\S]*version 1"):
    TokenFolder(folder)
