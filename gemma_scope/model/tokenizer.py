"""Text to token ids and back, exactly as Gemma was trained.

Sentencepiece does the work; on top of it come what looking inside a model
needs: the characters every token covers, text for display, and control tokens
that are obeyed or, in text from a user, kept as text. It does not know files
(see `tokenizer_sources`) or chat templates (see `chat`).
"""

from collections.abc import Sequence
import dataclasses
import functools
import os
import re

import numpy as np
import sentencepiece

from gemma_scope import errors
from gemma_scope.model import tokenizer_sources as sources

# Every control piece has this shape, and no match can contain another.
_CONTROL_SHAPE = re.compile(r"<[^<>\[\]\s]+>|\[[^<>\[\]\s]+\]")


@dataclasses.dataclass(frozen=True)
class Encoding:
  """A text as tokens.

  Attributes:
    ids: Token ids.
    offsets: (start, end) of each token in the Python string that was encoded,
      counted in characters. BOS covers (0, 0); tokens that are bytes of one
      character all cover that character.
    tokens: Text of each token for display (see `Tokenizer.token_text`).
  """

  ids: tuple[int, ...]
  offsets: tuple[tuple[int, int], ...]
  tokens: tuple[str, ...]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Tokenizer:
  """Gemma's tokenizer; `load_tokenizer` makes one from a file.

  Attributes:
    vocabulary: All pieces by id.
  """

  vocabulary: sources.Vocabulary

  def __repr__(self) -> str:
    return f"Tokenizer({self.vocab_size:,} pieces)"

  @property
  def vocab_size(self) -> int:
    """Number of token ids."""
    return len(self.vocabulary.pieces)

  @property
  def pad_id(self) -> int:
    """Id of <pad>."""
    return self.control_ids["<pad>"]

  @property
  def eos_id(self) -> int:
    """Id of <eos>, which ends a text."""
    return self.control_ids["<eos>"]

  @property
  def bos_id(self) -> int:
    """Id of <bos>, which every input starts with."""
    return self.control_ids["<bos>"]

  @property
  def unk_id(self) -> int:
    """Id of <unk>; no text needs it, bytes stand in."""
    return self.control_ids["<unk>"]

  @property
  def start_of_turn_id(self) -> int:
    """Id of <start_of_turn>."""
    return self.control_ids["<start_of_turn>"]

  @property
  def end_of_turn_id(self) -> int:
    """Id of <end_of_turn>, where a chat model stops."""
    return self.control_ids["<end_of_turn>"]

  @functools.cached_property
  def control_ids(self) -> dict[str, int]:
    """Control token -> its id: special, turn, image and unused tokens."""
    control = (sources.PieceKind.CONTROL, sources.PieceKind.UNKNOWN)
    pairs = zip(self.vocabulary.pieces, self.vocabulary.kinds)
    return {p: i for i, (p, kind) in enumerate(pairs) if kind in control}

  @functools.cached_property
  def _engine(self) -> sentencepiece.SentencePieceProcessor:
    proto = sources.vocabulary_to_proto(self.vocabulary)
    return sentencepiece.SentencePieceProcessor(model_proto=proto)

  def encode(
    self, text: str, *, bos: bool = True, allow_special: bool = True
  ) -> list[int]:
    """Encodes a text.

    Args:
      text: Any Unicode text.
      bos: Whether <bos> comes first; the model expects it.
      allow_special: Whether "<start_of_turn>" and its like in the text become
        control tokens (as in Hugging Face). False keeps them text, so that
        text from a user cannot end its turn.

    Returns:
      Token ids.

    Raises:
      TextError: Not a string, or not valid Unicode (a lone surrogate).
    """
    ids = [self.bos_id] if bos else []
    for part in self._parts(text, allow_special):
      ids += [part] if isinstance(part, int) else self._engine.encode(part)
    return ids

  def encode_with_offsets(
    self, text: str, *, bos: bool = True, allow_special: bool = True
  ) -> Encoding:
    """Encodes a text and says which characters each token covers.

    Args:
      text: Any Unicode text.
      bos: Whether <bos> comes first.
      allow_special: Whether control tokens in the text are obeyed.

    Returns:
      The same ids as `encode`, with offsets and display texts.

    Raises:
      TextError: Not a string, or not valid Unicode (a lone surrogate).
    """
    ids = self.encode(text, bos=bos, allow_special=allow_special)
    offsets = [(0, 0)] * bos + self._spans(ids[bos:])
    return Encoding(tuple(ids), tuple(offsets), tuple(self.pieces(ids)))

  def decode(
    self, ids: Sequence[int] | np.ndarray, *, skip_special: bool = False
  ) -> str:
    """Turns token ids back into text.

    Args:
      ids: Token ids, a sequence or a one-dimensional array.
      skip_special: Whether control tokens are left out.

    Returns:
      The text; bytes that are no valid UTF-8 become U+FFFD.

    Raises:
      TextError: An id the vocabulary does not have.
    """
    controls = set(self.control_ids.values()) if skip_special else set()
    data = b"".join(
      self._piece_bytes(i) for i in self._checked_ids(ids) if i not in controls
    )
    return data.decode("utf-8", errors="replace")

  def token_text(self, token_id: int) -> str:
    """The text of one token for display.

    Args:
      token_id: A token id.

    Returns:
      Its text with real spaces and newlines; a lone byte of a character, which
      has no text of its own, as "<0xE2>".

    Raises:
      TextError: An id the vocabulary does not have.
    """
    return self.pieces([token_id])[0]

  def pieces(self, ids: Sequence[int] | np.ndarray) -> list[str]:
    """The text of each token for display; see `token_text`.

    Args:
      ids: Token ids, a sequence or a one-dimensional array.

    Returns:
      One string a token.

    Raises:
      TextError: An id the vocabulary does not have.
    """
    known = self.vocabulary.pieces
    return [
      known[i].replace(sources.SPACE, " ") for i in self._checked_ids(ids)
    ]

  def token_id(self, token: str | int) -> int:
    """The id of a target: a text that is exactly one token, or an id.

    Args:
      token: Such as " Paris" (most words carry their leading space), or an id.

    Returns:
      The token id.

    Raises:
      TextError: The text is several tokens or none, or there is no such id.
    """
    if not isinstance(token, str):
      return self._checked_ids([token])[0]
    ids = self.encode(token, bos=False)
    if len(ids) == 1:
      return ids[0]
    raise errors.TextError(
      f"A target must be exactly one token; this is {len(ids)}.",
      received=f"{token!r}, in pieces {self.pieces(ids)}",
      instead=self._one_token_near(token, ids),
    )

  def _one_token_near(self, token: str, ids: list[int]) -> str:
    bare = token.strip()
    for near in (f" {bare}", bare, f" {bare.capitalize()}"):
      if bare and len(self.encode(near, bos=False)) == 1:
        return f"{near!r}"
    if not ids:
      return "a word with its leading space, such as ' Paris', or a token id"
    first = self.token_text(ids[0])
    return f"its first piece, {first!r}, or a token id"

  def _parts(self, text: str, allow_special: bool) -> list[str | int]:
    """Splits a text into plain text and control token ids."""
    _check_text(text)
    if not allow_special:
      return [text]
    parts: list[str | int] = []
    start = 0
    for match in _CONTROL_SHAPE.finditer(text):
      if match[0] in self.control_ids:
        parts += [text[start : match.start()], self.control_ids[match[0]]]
        start = match.end()
    return [part for part in [*parts, text[start:]] if part != ""]

  def _spans(self, ids: list[int]) -> list[tuple[int, int]]:
    """Characters covered by each token of a text without BOS.

    The normaliser is the identity but for spaces, so that a piece covers as
    many characters as it has, and a byte its share of one.
    """
    pieces, kinds = self.vocabulary.pieces, self.vocabulary.kinds
    spans, start, missing = [], 0, 0
    for i in ids:
      if kinds[i] != sources.PieceKind.BYTE:
        spans.append((start, start + len(pieces[i])))
        start += len(pieces[i])
        continue
      spans.append((start, start + 1))
      missing = missing - 1 if missing else _bytes_that_follow(pieces[i])
      start += not missing
    return spans

  def _piece_bytes(self, token_id: int) -> bytes:
    piece = self.vocabulary.pieces[token_id]
    if self.vocabulary.kinds[token_id] == sources.PieceKind.BYTE:
      return bytes([int(piece[3:5], 16)])
    return piece.replace(sources.SPACE, " ").encode()

  def _checked_ids(self, ids: Sequence[int] | np.ndarray) -> list[int]:
    array = np.asarray(ids)
    if array.size == 0:
      return []
    whole = array.ndim == 1 and np.issubdtype(array.dtype, np.integer)
    if not whole or array.min() < 0 or array.max() >= self.vocab_size:
      raise errors.TextError(
        "Token ids are whole numbers of the vocabulary, in one row.",
        received=f"{ids!r}"[:200],
        instead=f"ids from 0 to {self.vocab_size - 1}",
      )
    return array.tolist()


def load_tokenizer(
  path: str | os.PathLike[str], *, vocab_size: int | None = None
) -> Tokenizer:
  """Loads a tokenizer from any file that carries one.

  Args:
    path: A GGUF file, `tokenizer.model` or `tokenizer.json` (recognised by
      content), or a folder with one of the last two.
    vocab_size: Number of rows of the model's embedding, where it is known.

  Returns:
    The tokenizer.

  Raises:
    CheckpointError: No such file, not a tokenizer of Gemma, or not the size
      of the model's vocabulary.
  """
  vocabulary = sources.read_vocabulary(path)
  found = len(vocabulary.pieces)
  if vocab_size is not None and found != vocab_size:
    raise errors.CheckpointError(
      "The tokenizer does not have the model's vocabulary size.",
      received=f"{path}: {found:,} pieces; the model has {vocab_size:,}",
      instead="the tokenizer file that came with the checkpoint",
    )
  return Tokenizer(vocabulary)


def _check_text(text: object) -> None:
  if not isinstance(text, str):
    raise errors.TextError(
      "Only a string can be encoded.",
      received=f"{text!r}"[:200] + f" ({type(text).__name__})",
      instead="a str; bytes.decode() makes one of bytes, and token ids need "
      "no tokenizer",
    )
  try:
    text.encode()
  except UnicodeEncodeError as error:
    raise errors.TextError(
      "The text is not valid Unicode: half of a surrogate pair.",
      received=f"{text[error.start]!r} at character {error.start}",
      instead="remove it, or read the file with the encoding it was written in",
    ) from error


def _bytes_that_follow(piece: str) -> int:
  """How many bytes follow this first byte of a UTF-8 character."""
  first = int(piece[3:5], 16)
  return (first >= 0xC0) + (first >= 0xE0) + (first >= 0xF0)
