"""What a source of documents is: a sequence that says where it came from.

Sources read at random places, so that a corpus can be shuffled as a whole and
read by several processes, and hold little: an index, never all the text. They
travel to worker processes by pickle and keep no files open.
"""

from collections.abc import Mapping, Sequence
import hashlib
from typing import Any, Protocol

import numpy as np

from gemma_scope.errors import TextError

Document = str | np.ndarray  # text, or token ids [tokens]


class Documents(Protocol):
  """Documents by index."""

  def __len__(self) -> int:
    """How many there are."""
    ...

  def __getitem__(self, index: int, /) -> Document:
    """One document: a text, or token ids [tokens]."""
    ...

  @property
  def origin(self) -> Mapping[str, Any]:
    """What tells this source from others, as JSON values: name, size, kind."""
    ...


class InMemory:
  """Texts or rows of token ids that are already there."""

  def __init__(self, documents: Sequence[Document | Sequence[int]]):
    """Keeps the documents.

    Raises:
      TextError: If one is neither text nor a row of whole numbers.
    """
    self._documents = [_checked(document) for document in documents]

  def __len__(self) -> int:
    return len(self._documents)

  def __getitem__(self, index: int, /) -> Document:
    return self._documents[index]

  @property
  def origin(self) -> Mapping[str, Any]:
    """The number of documents and a hash of them."""
    digest = hashlib.sha256()
    for document in self._documents:
      is_text = isinstance(document, str)
      data = document.encode() if is_text else document.tobytes()
      digest.update(f"{'text' if is_text else 'ids'}:{len(data)}:".encode())
      digest.update(data)
    return {
      "kind": "memory",
      "documents": len(self),
      "sha256": digest.hexdigest(),
    }


def _checked(document: Document | Sequence[int]) -> Document:
  if isinstance(document, str):
    return document
  ids = np.asarray(document)
  if ids.ndim != 1 or (ids.size and not np.issubdtype(ids.dtype, np.integer)):
    raise TextError(
      "A document is a text or a row of token ids.",
      received=f"{document!r:.60}",
      instead='["A text.", "Another."], or [[2, 818, 5279], [2, 669]]',
    )
  return ids.astype(np.int32)
