"""The tiny tokenizer keeps what the tests of others rely on."""

import pytest

from gemma_scope.model import tokenizer as tokenizer_lib
from gemma_scope.testing import tokenizer as tiny


@pytest.fixture(scope="module")
def tokenizer():
  return tiny.tiny_tokenizer()


def test_its_special_ids_are_gemmas(tokenizer):
  ids = tokenizer.control_ids
  names = ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>")
  assert [ids[name] for name in names] == [0, 1, 2, 3, 105]
  assert ids["<end_of_turn>"] == 106
  assert tokenizer.encode("\n", bos=False) == [107]


def test_its_words_and_letters_are_single_tokens(tokenizer):
  assert tokenizer.vocab_size == tiny.TINY_VOCAB_SIZE == 512
  for word in tiny.TINY_WORDS.split():
    assert tokenizer.token_text(tokenizer.token_id(f" {word}")) == f" {word}"
  tokens = tokenizer.pieces(tokenizer.encode("Is Paris in France?", bos=False))
  assert tokens == ["I", "s", " Paris", " in", " France", "?"]


def test_it_can_be_written_and_loaded(tokenizer, tmp_path):
  for target in (tmp_path, tmp_path / "other.bin"):
    file = tiny.write_tiny_tokenizer_model(target)
    loaded = tokenizer_lib.load_tokenizer(file, vocab_size=512)
    assert loaded.vocabulary == tokenizer.vocabulary
  written = sorted(path.name for path in tmp_path.iterdir())
  assert written == ["other.bin", "tokenizer.model"]
