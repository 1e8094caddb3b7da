"""Documents of a corpus to token ids, some at a time.

Text is encoded without BOS, which packing puts in front of every piece; what
looks like a control token in it stays text unless asked for. Documents of ids
are taken as they are.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import hashlib
from typing import Any

import numpy as np

from gemma_scope.activations.corpus.corpus import Corpus
from gemma_scope.activations.corpus.options import PackingOptions
from gemma_scope.activations.corpus.packing import pack
from gemma_scope.errors import TextError
from gemma_scope.model.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True, eq=False)
class Tokenise:
  """A function from document numbers to token ids.

  Attributes:
    corpus: The documents.
    tokenizer: For those that are text.
    control_tokens: Whether control tokens written in a text are obeyed.
  """

  corpus: Corpus
  tokenizer: Tokenizer
  control_tokens: bool = False

  def __call__(self, numbers: Sequence[int]) -> list[np.ndarray]:
    """Token ids of these documents, int32, without BOS for texts.

    Raises:
      TextError: If an id is not in the vocabulary.
    """
    return [self._ids(number) for number in numbers]

  def _ids(self, number: int) -> np.ndarray:
    document = self.corpus[number]
    if isinstance(document, str):
      control = self.control_tokens
      ids = self.tokenizer.encode(document, bos=False, allow_special=control)
      return np.asarray(ids, np.int32)
    size = self.tokenizer.vocab_size
    if len(document) and not 0 <= document.min() <= document.max() < size:
      raise TextError(
        "A token array has an id that is not in the vocabulary.",
        received=f"document {number}: ids from {document.min()} to "
        f"{document.max()}",
        instead=f"ids below {size:,}, made by the tokenizer of this model",
      )
    return document


@dataclasses.dataclass(frozen=True, eq=False)
class PackChunk:
  """A function from document numbers to packed rows, for Grain's workers.

  Attributes:
    tokenise: Numbers to ids.
    options: How to pack.
  """

  tokenise: Tokenise
  options: PackingOptions

  def __call__(self, numbers: Sequence[int]) -> Mapping[str, np.ndarray]:
    """The arrays of a `PackedBatch` of as many rows as it takes."""
    return pack(self.tokenise(numbers), self.options, numbers).arrays


def check_tokenizer(corpus: Corpus, tokenizer: Tokenizer) -> None:
  """Refuses a corpus of tokens that another tokenizer made.

  Raises:
    TextError: If a part of the corpus names another tokenizer.
  """
  made_by = [getattr(part, "tokenizer", None) for part in corpus.parts]
  if not any(made_by):
    return
  ours = tokenizer_digest(tokenizer)
  if set(made_by) - {None, ours}:
    raise TextError(
      "The tokens of this corpus were made by another tokenizer.",
      received=f"tokenizers {', '.join(f'{d!s:.12}' for d in made_by)}, not "
      f"{ours:.12}",
      instead="the text itself, or its tokens by the tokenizer of this model",
    )


def tokenizer_digest(tokenizer: Tokenizer) -> str:
  """sha256 of a tokenizer's pieces, in order."""
  digest = hashlib.sha256()
  vocabulary: Any = tokenizer.vocabulary
  digest.update("\0".join(vocabulary.pieces).encode("utf-8", "surrogatepass"))
  digest.update(np.asarray(vocabulary.scores, "<f4").tobytes())
  return digest.hexdigest()
