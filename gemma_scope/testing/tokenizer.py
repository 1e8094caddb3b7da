"""A tokenizer of 512 pieces that behaves like Gemma's, built in memory.

Special, turn and newline ids are those of Gemma (0-3, 105, 106, 107); every
other text is letters, bytes and a few words, so that prompts of the tests
have targets of one token. Its pieces are made up: no weights fit it.
"""

import os
import pathlib
import string
import tempfile

from gemma_scope.model import tokenizer as tokenizer_lib
from gemma_scope.model import tokenizer_sources as sources

TINY_VOCAB_SIZE = 512
# Each is one token, and so is each of its beginnings.
TINY_WORDS = (
  " the capital of France is Paris Rome and Mary John gave a drink to in city"
)
# They score below the words, so that the order of merges matters.
_ENDINGS = ("th", "he", "is", "in", "an", "the", "ing", "and")
_USER_DEFINED = ("\n", "\n\n", *(sources.SPACE * n for n in (2, 3, 4)), "<b>")


def tiny_tokenizer() -> tokenizer_lib.Tokenizer:
  """Makes the tiny tokenizer.

  Returns:
    A tokenizer of `TINY_VOCAB_SIZE` pieces.
  """
  return tokenizer_lib.Tokenizer(tiny_vocabulary())


def tiny_vocabulary() -> sources.Vocabulary:
  """Makes the pieces of the tiny tokenizer.

  Returns:
    The vocabulary; the later a merge, the lower its score.
  """
  kind = sources.PieceKind
  unused = (f"<unused{i}>" for i in range(TINY_VOCAB_SIZE))
  rows = [(piece, kind.CONTROL) for piece in (*sources.FIRST_PIECES, "<mask>")]
  rows[3] = (rows[3][0], kind.UNKNOWN)
  rows += [(next(unused), kind.CONTROL) for _ in range(105 - len(rows))]
  rows += [(piece, kind.CONTROL) for piece in sources.TURN_PIECES]
  rows += [(piece, kind.USER_DEFINED) for piece in _USER_DEFINED]
  rows += [(f"<0x{byte:02X}>", kind.BYTE) for byte in range(256)]
  first_normal = len(rows)
  rows += [(piece, kind.NORMAL) for piece in _normal_pieces()]
  rows += [(next(unused), kind.CONTROL) for _ in range(512 - len(rows))]
  return sources.Vocabulary(
    pieces=tuple(piece for piece, _ in rows),
    scores=tuple(float(min(0, first_normal - i)) for i in range(len(rows))),
    kinds=tuple(int(kind) for _, kind in rows),
  )


def write_tiny_tokenizer_model(
  path: str | os.PathLike[str],
) -> pathlib.Path:
  """Writes the tiny tokenizer as a sentencepiece `tokenizer.model`.

  Args:
    path: The file to write, or the folder to put `tokenizer.model` into.

  Returns:
    The file written.
  """
  target = pathlib.Path(path)
  target = target / "tokenizer.model" if target.is_dir() else target
  handle, temporary = tempfile.mkstemp(dir=target.parent)
  with os.fdopen(handle, "wb") as file:
    file.write(sources.vocabulary_to_proto(tiny_vocabulary()))
    file.flush()
    os.fsync(file.fileno())
  os.replace(temporary, target)
  return target


def _normal_pieces() -> list[str]:
  """Characters, the beginnings of the words, shortest first, then endings."""
  letters = string.ascii_letters + string.digits + ".,:;!?'\"()-"
  pieces = dict.fromkeys([sources.SPACE, *letters])
  for word in TINY_WORDS.split():
    spaced = sources.SPACE + word
    pieces |= dict.fromkeys(spaced[:n] for n in range(2, len(spaced) + 1))
  return [*pieces, *_ENDINGS]
