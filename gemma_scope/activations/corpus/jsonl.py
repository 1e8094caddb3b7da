"""JSON lines as documents: one object a line, the text under a key.

Blank lines are left out. Only the line asked for is read and parsed.
"""

from collections.abc import Mapping
import dataclasses
import json
import os
import re
from typing import Any

from gemma_scope.activations.corpus.spans import FileSpans, open_text
from gemma_scope.errors import TextError

_HALF = re.compile("[\ud800-\udfff]").search


@dataclasses.dataclass(frozen=True, eq=False)
class JsonLines:
  """The texts of a JSONL file.

  Attributes:
    lines: Its lines.
    key: The text's key; dots lead into nested objects.
  """

  lines: FileSpans
  key: str

  def __len__(self) -> int:
    return len(self.lines)

  def __getitem__(self, index: int, /) -> str:
    line = self.lines.raw(index).removeprefix("\ufeff")
    try:
      value = json.loads(line)
    except json.JSONDecodeError as error:
      raise TextError(
        "A line of the corpus is no JSON.",
        received=f"{self._where(index)}: {line:.60} ({error})",
        instead='one object a line, such as {"text": "A document."}',
      ) from error
    return self._text(value, index)

  def _text(self, value: Any, index: int) -> str:
    found = value
    for part in self.key.split("."):
      found = found.get(part) if isinstance(found, dict) else None
    if not isinstance(found, str):
      keys = list(value) if isinstance(value, dict) else type(value).__name__
      raise TextError(
        f"A line of the corpus has no text under {self.key!r}.",
        received=f"{self._where(index)} with {keys!s:.200}",
        instead='the name of the text\'s key, such as key="content"',
      )
    # JSON can write halves of characters, which no tokenizer takes.
    return found.encode(errors="replace").decode() if _HALF(found) else found

  def _where(self, index: int) -> str:
    start = self.lines.spans[index][0]
    return f"{self.lines.path}, line at byte {start}"

  @property
  def origin(self) -> Mapping[str, Any]:
    """The file's name and size, and the key."""
    return {**self.lines.origin, "kind": "jsonl", "key": self.key}


def open_jsonl(path: str | os.PathLike[str], key: str = "text") -> JsonLines:
  """Indexes a JSONL file; `key` names the text in each object."""
  return JsonLines(open_text(path, "line"), key)
