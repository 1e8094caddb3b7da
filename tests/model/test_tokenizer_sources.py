"""Three kinds of file, one vocabulary; files of other kinds are refused."""

import json
import struct

import pytest
from sentencepiece import sentencepiece_model_pb2 as spm_pb2
import tokenizers

from gemma_scope import errors
from gemma_scope.model import tokenizer as tokenizer_lib
from gemma_scope.model import tokenizer_sources as sources
from gemma_scope.testing import tokenizer as tiny

KIND = sources.PieceKind
TEXTS = (
  "",
  " The capital  of France is\n\n\tParis, 日本 <b>x</b>",
  "John gave <bos> a drink<end_of_turn>\n" + " " * 11 + "to Mary\x00é",
  "<unk>[multimodal]<unused7><unused400>▁ the",
)


@pytest.fixture(scope="module")
def vocabulary():
  return tiny.tiny_vocabulary()


def string(text):
  return struct.pack("<Q", len(text.encode())) + text.encode()


def array(values, code, pack):
  return struct.pack("<IIQ", 9, code, len(values)) + b"".join(map(pack, values))


def write_gguf(path, vocabulary, **changes):
  """A GGUF file that holds nothing but a tokenizer, spelt as llama.cpp does."""
  user_defined = KIND.USER_DEFINED
  kinds = [KIND.CONTROL if k == KIND.UNKNOWN else k for k in vocabulary.kinds]
  tokens = [
    piece.replace("▁", " ") if kind == user_defined else piece
    for piece, kind in zip(vocabulary.pieces, kinds)
  ]
  entries = {
    "model": struct.pack("<I", 8) + string("llama"),
    "tokens": array(tokens, 8, string),
    "scores": array(vocabulary.scores, 6, lambda x: struct.pack("<f", x)),
    "token_type": array(kinds, 5, lambda x: struct.pack("<i", x)),
  } | changes
  written = {key: value for key, value in entries.items() if value}
  with path.open("wb") as file:
    file.write(struct.pack("<4sIQQ", b"GGUF", 3, 0, len(written)))
    for key, value in written.items():
      file.write(string(f"tokenizer.ggml.{key}") + value)
  return path


def to_json(vocabulary):
  """The tokenizer.json of a vocabulary, merges from its pieces and scores."""
  added = (KIND.UNKNOWN, KIND.CONTROL, KIND.USER_DEFINED)
  ids = {piece: i for i, piece in enumerate(vocabulary.pieces)}
  merges = sorted(
    (-vocabulary.scores[ids[piece]], n, piece[:n], piece[n:])
    for piece in vocabulary.pieces
    for n in range(1, len(piece))
    if piece[:n] in ids and piece[n:] in ids
  )
  flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
  space = {"pattern": {"String": " "}}
  return {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [
      {"id": i, "content": piece} | dict.fromkeys(flags, False)
      for i, piece in enumerate(vocabulary.pieces)
      if vocabulary.kinds[i] in added
    ],
    "normalizer": space | {"type": "Replace", "content": "▁"},
    "pre_tokenizer": space
    | {"type": "Split", "behavior": "MergedWithPrevious", "invert": False},
    "post_processor": None,
    "decoder": None,
    "model": {
      "type": "BPE",
      "dropout": None,
      "unk_token": "<unk>",
      "continuing_subword_prefix": None,
      "end_of_word_suffix": None,
      "fuse_unk": True,
      "byte_fallback": True,
      "ignore_merges": False,
      "vocab": ids,
      "merges": [[left, right] for _, _, left, right in merges],
    },
  }


def write_json(path, content):
  path.write_text(json.dumps(content), encoding="utf-8")
  return path


def with_old_merges(content):
  merges = [" ".join(pair) for pair in content["model"]["merges"]]
  return content | {"model": content["model"] | {"merges": merges}}


def test_every_kind_of_file_gives_the_same_tokenizer(vocabulary, tmp_path):
  content = to_json(vocabulary)
  files = [
    tiny.write_tiny_tokenizer_model(tmp_path / "a"),
    write_gguf(tmp_path / "b", vocabulary),
    write_json(tmp_path / "c", content),
    write_json(tmp_path / "d", with_old_merges(content)),
  ]
  expected = [tiny.tiny_tokenizer().encode_with_offsets(t) for t in TEXTS]
  for file in files:
    loaded = tokenizer_lib.load_tokenizer(file)
    assert loaded.vocabulary.pieces == vocabulary.pieces
    assert loaded.vocabulary.kinds == vocabulary.kinds
    assert [loaded.encode_with_offsets(t) for t in TEXTS] == expected


def test_the_json_is_read_as_hugging_face_reads_it(vocabulary):
  peer = tokenizers.Tokenizer.from_str(json.dumps(to_json(vocabulary)))
  tokenizer = tiny.tiny_tokenizer()
  for text in TEXTS:
    theirs = peer.encode(text)
    ours = tokenizer.encode_with_offsets(text, bos=False)
    assert list(ours.ids) == theirs.ids
    assert list(ours.offsets) == theirs.offsets


def test_a_folder_is_searched(vocabulary, tmp_path):
  write_json(tmp_path / "tokenizer.json", to_json(vocabulary))
  assert sources.read_vocabulary(tmp_path).pieces == vocabulary.pieces
  (tmp_path / "empty").mkdir()
  with pytest.raises(errors.CheckpointError, match="no tokenizer here"):
    sources.read_vocabulary(tmp_path / "empty")
  with pytest.raises(errors.CheckpointError, match="no such file"):
    sources.read_vocabulary(tmp_path / "absent")


def test_rows_beyond_the_text_are_dropped(vocabulary, tmp_path):
  padded = sources.Vocabulary(
    (*vocabulary.pieces, "<image_soft_token>", "[PAD513]"),
    (*vocabulary.scores, 0.0, 0.0),
    (*vocabulary.kinds, KIND.USER_DEFINED, KIND.UNUSED),
  )
  loaded = sources.read_vocabulary(write_gguf(tmp_path / "a", padded))
  assert loaded.pieces == vocabulary.pieces


def test_turn_tokens_are_control_whatever_the_file_calls_them(
  vocabulary, tmp_path
):
  kinds = [
    KIND.USER_DEFINED if k == KIND.CONTROL else k for k in vocabulary.kinds
  ]
  other = sources.Vocabulary(vocabulary.pieces, vocabulary.scores, tuple(kinds))
  file = tmp_path / "tokenizer.model"
  file.write_bytes(sources.vocabulary_to_proto(other))
  assert sources.read_vocabulary(file).kinds == vocabulary.kinds


def changed_proto(vocabulary, change):
  proto = spm_pb2.ModelProto.FromString(sources.vocabulary_to_proto(vocabulary))
  change(proto)
  return proto.SerializeToString()


def drop_turns(proto):
  proto.pieces[105].piece = "<unused900>"


def add_prefix(proto):
  proto.normalizer_spec.add_dummy_prefix = True


def become_unigram(proto):
  proto.trainer_spec.model_type = proto.trainer_spec.UNIGRAM


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (drop_turns, "512 pieces"),
    (add_prefix, "changes the text"),
    (become_unigram, "changes the text"),
  ],
)
def test_other_sentencepiece_models_are_refused(
  vocabulary, tmp_path, change, message
):
  file = tmp_path / "tokenizer.model"
  file.write_bytes(changed_proto(vocabulary, change))
  with pytest.raises(errors.CheckpointError, match=message):
    sources.read_vocabulary(file)


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (b"", "no sentencepiece model, JSON or GGUF"),
    (b"Once upon a time", "no sentencepiece model, JSON or GGUF"),
    (b"\x89PNG\r\n\x1a\n\x00\x00", "no sentencepiece model, JSON or GGUF"),
    (b'{"a": "\xff\xfe"}', "not UTF-8"),
    (b'{"model": ', "no JSON"),
    (b'{"model": {}}', "JSON without 'added_tokens'"),
    (b'{"model": [], "added_tokens": []}', "JSON without"),
    (b"GGUF", "GGUF header is cut off"),
  ],
)
def test_files_that_are_no_tokenizer_are_refused(tmp_path, content, message):
  file = tmp_path / "tokenizer"
  file.write_bytes(content)
  with pytest.raises(errors.CheckpointError, match=message):
    sources.read_vocabulary(file)


def test_weights_given_by_mistake_are_not_read_whole(tmp_path):
  file = tmp_path / "model.safetensors"
  with file.open("wb") as stream:
    stream.truncate(1 << 40)  # sparse: a terabyte that takes no room
  with pytest.raises(errors.CheckpointError, match="no sentencepiece model"):
    sources.read_vocabulary(file)


def test_json_of_other_tokenizers_is_refused(vocabulary, tmp_path):
  content = to_json(vocabulary)
  unnormalised = content | {"normalizer": None}
  file = write_json(tmp_path / "a", unnormalised)
  with pytest.raises(errors.CheckpointError, match="normaliser"):
    sources.read_vocabulary(file)
  gap = [{"content": "<extra>", "id": 600}]
  holey = content | {"added_tokens": content["added_tokens"] + gap}
  with pytest.raises(errors.CheckpointError, match="gaps between their ids"):
    sources.read_vocabulary(write_json(tmp_path / "b", holey))


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"tokens": None}, "no tokenizer.ggml.tokens"),
    ({"model": struct.pack("<I", 8) + string("gpt2")}, "model 'gpt2'"),
    ({"scores": array([0.5], 6, lambda x: struct.pack("<f", x))}, "1 scores"),
  ],
)
def test_gguf_of_other_tokenizers_is_refused(
  vocabulary, tmp_path, changes, message
):
  file = write_gguf(tmp_path / "a.gguf", vocabulary, **changes)
  with pytest.raises(errors.CheckpointError, match=message):
    sources.read_vocabulary(file)
