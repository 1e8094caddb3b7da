"""Gemma's vocabulary, read from the three kinds of file that carry it.

GGUF metadata, a sentencepiece `tokenizer.model` and a Hugging Face
`tokenizer.json` become the same `Vocabulary`, and that becomes the one
sentencepiece model that `tokenizer` runs: BPE by piece score, byte fallback,
identity normaliser, no dummy prefix. Files of other tokenizers are refused,
not approximated. No text is encoded here.
"""

from collections.abc import Sequence
import dataclasses
import enum
import json
import os
import pathlib
import re
from typing import Any

from google.protobuf.message import DecodeError
from sentencepiece import sentencepiece_model_pb2 as spm_pb2

from gemma_scope import errors
from gemma_scope.weights import gguf

SPACE = "\u2581"  # how sentencepiece writes a space inside a piece


class PieceKind(enum.IntEnum):
  """How a piece is used; the numbers are those of sentencepiece and GGUF."""

  NORMAL = 1
  UNKNOWN = 2
  CONTROL = 3
  USER_DEFINED = 4
  UNUSED = 5
  BYTE = 6


@dataclasses.dataclass(frozen=True)
class Vocabulary:
  """Every piece of a tokenizer, by id.

  Attributes:
    pieces: Text of each piece, spaces written as U+2581.
    scores: Of two possible merges, the one whose result scores higher is made.
    kinds: `PieceKind` of each piece.
  """

  pieces: tuple[str, ...]
  scores: tuple[float, ...]
  kinds: tuple[int, ...]


# Ids that every Gemma tokenizer fixes.
FIRST_PIECES = ("<pad>", "<eos>", "<bos>", "<unk>")
TURN_PIECES = ("<start_of_turn>", "<end_of_turn>")
# Files disagree on the kind of these; in all of them they steer the model, so
# that text from a user must be able to contain them without effect.
_CONTROL = re.compile(
  r"<(?:pad|eos|bos|unk|mask|unused\d+|(?:start|end)_of_(?:turn|image))>"
  r"|\[multimodal\]"
)
# Ten times the real file; keeps weights given by mistake out of the memory.
_MOST_BYTES = 50_000_000
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
# Rows beyond the text vocabulary: padding, and what stands for an image.
_BEYOND_TEXT = re.compile(r"\[PAD\d+\]|<pad\d+>|<image_soft_token>")


def read_vocabulary(path: str | os.PathLike[str]) -> Vocabulary:
  """Reads a tokenizer file, recognised by its content.

  Args:
    path: A GGUF file, `tokenizer.model` or `tokenizer.json`, or a folder with
      one of the last two.

  Returns:
    The vocabulary.

  Raises:
    CheckpointError: No such file, no tokenizer, or not Gemma's kind.
  """
  file = _tokenizer_file(pathlib.Path(path))
  with file.open("rb") as stream:
    start = stream.read(64)
  if start.startswith(gguf.MAGIC):
    vocabulary = gguf_to_vocabulary(file)
  elif start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
    vocabulary = tokenizer_json_to_vocabulary(file)
  else:
    vocabulary = tokenizer_model_to_vocabulary(file)
  return _checked(vocabulary, file)


def gguf_to_vocabulary(path: str | os.PathLike[str]) -> Vocabulary:
  """Reads the vocabulary from the metadata of a GGUF file.

  Args:
    path: A GGUF file; only its header is read.

  Returns:
    The vocabulary. GGUF writes the spaces of user-defined pieces as spaces;
    here they are U+2581 again.

  Raises:
    CheckpointError: The file is damaged or holds no sentencepiece tokenizer.
  """
  metadata = gguf.read_header(path).metadata
  model = metadata.get("tokenizer.ggml.model")
  try:
    tokens, scores, types = (
      list(metadata[f"tokenizer.ggml.{key}"])  # type: ignore[call-overload]
      for key in ("tokens", "scores", "token_type")
    )
  except KeyError as error:
    raise _no_tokenizer(path, f"no {error.args[0]}") from error
  if model != "llama" or not len(tokens) == len(scores) == len(types):
    found = f"model {model!r}: {len(tokens)} tokens, {len(scores)} scores"
    raise _no_tokenizer(path, f"{found}, {len(types)} types")
  kinds = [int(kind) for kind in types]
  pieces = [
    token.replace(" ", SPACE) if kind == PieceKind.USER_DEFINED else token
    for token, kind in zip(tokens, kinds)
  ]
  return _vocabulary(pieces, [float(score) for score in scores], kinds)


def tokenizer_model_to_vocabulary(path: str | os.PathLike[str]) -> Vocabulary:
  """Reads a sentencepiece model.

  Args:
    path: A `tokenizer.model` file.

  Returns:
    The vocabulary.

  Raises:
    CheckpointError: It is no sentencepiece model, or of another kind.
  """
  path = pathlib.Path(path)
  neither = _no_tokenizer(path, "no sentencepiece model, JSON or GGUF")
  if path.stat().st_size > _MOST_BYTES:
    raise neither
  try:
    proto = _model_proto().FromString(path.read_bytes())
  except DecodeError as error:
    raise neither from error
  normalizer, trainer = proto.normalizer_spec, proto.trainer_spec
  if not proto.pieces:
    raise neither
  if (
    trainer.model_type != trainer.BPE
    or normalizer.add_dummy_prefix
    or normalizer.remove_extra_whitespaces
    or normalizer.precompiled_charsmap
  ):
    raise _no_tokenizer(path, "a sentencepiece model that changes the text")
  return _vocabulary(
    [piece.piece for piece in proto.pieces],
    [piece.score for piece in proto.pieces],
    [piece.type for piece in proto.pieces],
  )


def tokenizer_json_to_vocabulary(path: str | os.PathLike[str]) -> Vocabulary:
  """Reads a Hugging Face tokenizer.

  Args:
    path: A `tokenizer.json` file.

  Returns:
    The vocabulary. A piece scores by the first merge that makes it: merging
    by rank and merging by score are then the same procedure.

  Raises:
    CheckpointError: It is not UTF-8, not JSON, or of another kind.
  """
  try:
    content = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    model, added = content["model"], content["added_tokens"]
    kind = (model["type"], model["byte_fallback"], content["normalizer"])
    ids, merges = model["vocab"], model["merges"]
  except UnicodeDecodeError as error:
    raise _no_tokenizer(path, f"not UTF-8 ({error.reason})") from error
  except json.JSONDecodeError as error:
    raise _no_tokenizer(path, f"no JSON ({error})") from error
  except (KeyError, TypeError) as error:
    raise _no_tokenizer(path, f"JSON without {error}") from error
  replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
  if kind != ("BPE", True, replace):
    raise _no_tokenizer(path, f"model and normaliser {kind}")
  ids = ids | {token["content"]: token["id"] for token in added}
  if sorted(ids.values()) != list(range(len(ids))):
    raise _no_tokenizer(path, f"{len(ids)} pieces with gaps between their ids")
  pieces = sorted(ids, key=ids.__getitem__)
  user_defined = {token["content"] for token in added}
  scores = _merge_scores(merges)
  return _vocabulary(
    pieces,
    [scores.get(piece, 0.0) for piece in pieces],
    [
      PieceKind.USER_DEFINED
      if piece in user_defined
      else PieceKind.BYTE
      if _BYTE.fullmatch(piece)
      else PieceKind.NORMAL
      for piece in pieces
    ],
  )


def vocabulary_to_proto(vocabulary: Vocabulary) -> bytes:
  """The sentencepiece model that runs a vocabulary.

  Args:
    vocabulary: Any vocabulary that passed the checks of `read_vocabulary`.

  Returns:
    A serialised ModelProto, the content of a `tokenizer.model` file.
  """
  proto = _model_proto()()
  add = proto.pieces.add
  for piece, score, kind in zip(
    vocabulary.pieces, vocabulary.scores, vocabulary.kinds
  ):
    add(piece=piece, score=score, type=kind)  # type: ignore[arg-type]
  trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
  trainer.model_type = trainer.BPE
  trainer.byte_fallback = True
  trainer.vocab_size = len(vocabulary.pieces)
  trainer.pad_piece, trainer.eos_piece = FIRST_PIECES[:2]
  trainer.bos_piece, trainer.unk_piece = FIRST_PIECES[2:]
  trainer.pad_id, trainer.eos_id, trainer.bos_id, trainer.unk_id = range(4)
  normalizer.name = "identity"
  normalizer.add_dummy_prefix = False
  normalizer.remove_extra_whitespaces = False
  normalizer.escape_whitespaces = True
  return proto.SerializeToString()


def _tokenizer_file(path: pathlib.Path) -> pathlib.Path:
  names = ("tokenizer.model", "tokenizer.json")
  for file in [path / name for name in names] if path.is_dir() else [path]:
    if file.is_file():
      return file
  raise errors.CheckpointError(
    "There is no tokenizer here.",
    received=f"{path} ({'a folder' if path.is_dir() else 'no such file'})",
    instead="a .gguf file, tokenizer.model or tokenizer.json, or a folder "
    "with one of the last two",
  )


def _merge_scores(merges: Sequence[str | Sequence[str]]) -> dict[str, float]:
  """Piece -> minus the rank of the first merge that makes it."""
  scores: dict[str, float] = {}
  for rank, merge in enumerate(merges):  # older files write "left right"
    piece = "".join(merge.split(" ") if isinstance(merge, str) else merge)
    scores.setdefault(piece, -float(rank))
  return scores


def _vocabulary(
  pieces: list[str], scores: list[float], kinds: list[int]
) -> Vocabulary:
  """Drops rows beyond the text, makes control pieces of what steers."""
  size = len(pieces)
  while size and _BEYOND_TEXT.fullmatch(pieces[size - 1]):
    size -= 1
  kinds = [
    PieceKind.CONTROL if _CONTROL.fullmatch(piece) else kind
    for piece, kind in zip(pieces[:size], kinds)
  ]
  if size > 3:
    kinds[3] = PieceKind.UNKNOWN
  return Vocabulary(tuple(pieces[:size]), tuple(scores[:size]), tuple(kinds))


def _checked(vocabulary: Vocabulary, path: pathlib.Path) -> Vocabulary:
  pieces, kinds = vocabulary.pieces, vocabulary.kinds
  num_bytes = sum(kind == PieceKind.BYTE for kind in kinds)
  missing = set(TURN_PIECES) - set(pieces)
  if pieces[:4] != FIRST_PIECES or missing or num_bytes != 256:
    found = f"{len(pieces)} pieces that start {pieces[:4]}"
    raise _no_tokenizer(path, f"{found}, {num_bytes} of them bytes")
  return vocabulary


def _no_tokenizer(path: object, found: str) -> errors.CheckpointError:
  return errors.CheckpointError(
    "This file holds no tokenizer of Gemma.",
    received=f"{path}: {found}",
    instead="the tokenizer.model or tokenizer.json that belongs to the "
    "checkpoint, or a Gemma GGUF file",
  )


def _model_proto() -> Any:
  """The message class, which protobuf makes while importing its module."""
  return getattr(spm_pb2, "ModelProto")  # noqa: B009
