"""Documents to ids: no BOS, control tokens as text, ids checked."""

import numpy as np
import pytest

from gemma_scope import testing
from gemma_scope.activations.corpus.corpus import Corpus
from gemma_scope.activations.corpus.options import PackingOptions
from gemma_scope.activations.corpus.packing import pack
from gemma_scope.activations.corpus.tokenise import (
  PackChunk,
  Tokenise,
  check_tokenizer,
  tokenizer_digest,
)
from gemma_scope.errors import TextError


@pytest.fixture(scope="module")
def tokenizer():
  return testing.tiny_lm().tokenizer


def test_texts_are_encoded_and_ids_are_kept(tokenizer):
  corpus = Corpus.of([" the capital", [2, 300, 301], "", "Mary"])
  found = Tokenise(corpus, tokenizer)([3, 0, 1, 2])
  assert found[0].tolist() == tokenizer.encode("Mary", bos=False)
  assert found[1].tolist() == tokenizer.encode(" the capital", bos=False)
  assert found[2].tolist() == [2, 300, 301]
  assert found[3].tolist() == []
  assert all(ids.dtype == np.int32 for ids in found)


def test_control_tokens_stay_text_unless_asked_for(tokenizer):
  corpus = Corpus.of(["a<eos>b"])
  (text,) = Tokenise(corpus, tokenizer)([0])
  (control,) = Tokenise(corpus, tokenizer, control_tokens=True)([0])
  assert 1 not in text
  assert control.tolist().count(1) == 1


def test_ids_of_another_vocabulary_are_refused(tokenizer):
  corpus = Corpus.of([[2, 300], [2, 512]])
  with pytest.raises(TextError, match=r"document 1: ids from 2 to 512"):
    Tokenise(corpus, tokenizer)([0, 1])
  with pytest.raises(TextError, match="ids below 512"):
    Tokenise(Corpus.of([[-1]]), tokenizer)([0])


def test_a_chunk_is_packed_under_the_documents_own_numbers(tokenizer):
  corpus = Corpus.of([[2, 300, 301], [302], [303, 304]])
  options = PackingOptions(seq_len=5)
  found = PackChunk(Tokenise(corpus, tokenizer), options)([2, 0])
  expected = pack([corpus[2], corpus[0]], options, [2, 0])
  assert found.keys() == expected.arrays.keys()
  for name, array in expected.arrays.items():
    np.testing.assert_array_equal(found[name], array)
  assert set(found["documents"].ravel().tolist()) == {2, 0, -1}


def test_tokens_of_another_tokenizer_are_refused(tokenizer):
  corpus = Corpus.of(["a"])
  check_tokenizer(corpus, tokenizer)
  corpus.parts[0].tokenizer = tokenizer_digest(tokenizer)
  check_tokenizer(corpus, tokenizer)
  corpus.parts[0].tokenizer = "another"
  with pytest.raises(TextError, match=r"another tokenizer[\s\S]*another"):
    check_tokenizer(corpus, tokenizer)
