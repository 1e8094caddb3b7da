"""Text files as documents: whole files, blocks between blank lines, lines.

An index of byte spans is made in one pass through a file, 16 bytes a document;
text is read when it is asked for. Files are UTF-8. A file of one document that
is longer than 256 KB is cut at line ends into documents of about that
length: they are packed in pieces anyway, and nothing has to hold it all.
"""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
import os
import pathlib
from typing import Any

import numpy as np

from gemma_scope.errors import TextError

BLOCK = 1 << 22  # bytes read at once
LONGEST = 1 << 18  # bytes of one document of a file
_NEWLINE = 10
_SPACES = np.isin(np.arange(256), list(b" \t\r\n\v\f"))

Spans = np.ndarray  # [documents, 2] int64: first byte, byte behind the last


@dataclasses.dataclass(frozen=True, eq=False)
class FileSpans:
  """Stretches of one text file.

  Attributes:
    path: The file.
    spans: Its documents.
    size: Bytes of the file when it was indexed.
    unit: What a document is: "file", "block" or "line".
  """

  path: pathlib.Path
  spans: Spans
  size: int
  unit: str

  def __len__(self) -> int:
    return len(self.spans)

  def __getitem__(self, index: int, /) -> str:
    return self.raw(index).removeprefix("\ufeff").replace("\r\n", "\n")

  def raw(self, index: int) -> str:
    """The text as it stands in the file.

    Raises:
      TextError: If the file is not UTF-8, or shorter than it was.
    """
    start, stop = self.spans[index].tolist()
    handle = os.open(self.path, os.O_RDONLY)
    try:
      data = _read(handle, start, stop)
    finally:
      os.close(handle)
    if len(data) < stop - start:
      raise TextError(
        "A file of the corpus has changed since it was opened.",
        received=f"{self.path}: no bytes {start} to {stop} any more",
        instead="leave it as it is while it is read, or open the corpus again",
      )
    try:
      return data.decode()
    except UnicodeDecodeError as error:
      raise TextError(
        "A file of the corpus is not UTF-8.",
        received=f"{self.path}, byte {start + error.start}: "
        f"{data[error.start : error.start + 8]!r}",
        instead="a UTF-8 file, such as from: iconv -f latin1 -t utf-8",
      ) from error

  @property
  def origin(self) -> Mapping[str, Any]:
    """The file's name and size, and what a document is."""
    return {
      "kind": f"text by {self.unit}",
      "name": self.path.name,
      "bytes": self.size,
      "documents": len(self),
    }


def open_text(path: str | os.PathLike[str], unit: str = "file") -> FileSpans:
  """Indexes a text file.

  Args:
    path: The file.
    unit: "file" for one document, "block" for one between blank lines, or
      "line" for one a line that is not blank.

  Raises:
    TextError: If there is no such unit.
  """
  if unit not in _INDEXES:
    raise TextError(
      "A document is a file, a block between blank lines, or a line.",
      received=f"unit={unit!r}",
      instead=" or ".join(f'unit="{name}"' for name in _INDEXES),
    )
  path = pathlib.Path(path)
  spans = _INDEXES[unit](path)
  return FileSpans(path, spans, path.stat().st_size, unit)


def line_spans(path: pathlib.Path) -> Spans:
  """Every line that is not blank, without its newline."""
  return np.concatenate(
    [_NONE, *(lines[~blank] for lines, blank in _lines(path))]
  )


def block_spans(path: pathlib.Path) -> Spans:
  """Every stretch of lines between blank ones, the last newline left out."""
  found, start, end = [_NONE], None, 0
  for lines, blank in _lines(path):
    # A block begins at a line behind a blank one and ends before the next.
    before = np.concatenate([[start is None], blank[:-1]])
    after = np.concatenate([blank[1:], [False]])
    begins, ends = lines[~blank & before, 0], lines[~blank & after, 1]
    if start is not None:
      begins = np.concatenate([[start], begins])
      ends = np.concatenate([[end], ends]) if blank[0] else ends
    start = None if blank[-1] else int(begins[-1])
    end = int(lines[-1, 1])
    found.append(np.stack([begins[: len(ends)], ends], axis=1))
  if start is not None:
    found.append(np.asarray([[start, end]]))
  return np.concatenate(found)


def whole_spans(path: pathlib.Path) -> Spans:
  """The file, cut at line ends near every 256 KB if it is longer."""
  size = path.stat().st_size
  cuts = [0]
  with open(path, "rb") as file:
    while size - cuts[-1] > LONGEST:
      file.seek(cuts[-1])
      cuts.append(cuts[-1] + _cut(file.read(LONGEST)))
  edges = np.asarray([*cuts, size] if size else cuts, np.int64)
  return np.stack([edges[:-1], edges[1:]], axis=1)


_NONE = np.zeros((0, 2), np.int64)
_INDEXES: Mapping[str, Callable[[pathlib.Path], Spans]] = {
  "file": whole_spans,
  "block": block_spans,
  "line": line_spans,
}


def _cut(data: bytes) -> int:
  """Where to cut: behind the last newline, or else between characters."""
  newline = data.rfind(b"\n") + 1
  if newline:
    return newline
  end = len(data)
  while end > 1 and data[end - 1] & 0xC0 == 0x80:  # inside a character
    end -= 1
  return end - 1 or len(data)


def _lines(path: pathlib.Path) -> Iterator[tuple[Spans, np.ndarray]]:
  """Yields spans of lines and whether each is blank, some at a time."""
  start, text_before = 0, False  # of the line that goes on in this block
  with open(path, "rb") as file:
    at = 0
    while data := file.read(BLOCK):
      block = np.frombuffer(data, np.uint8)
      newlines = np.flatnonzero(block == _NEWLINE)
      seen = np.cumsum(~_SPACES[block], dtype=np.int64)
      here = seen[newlines]
      blank = np.diff(here, prepend=0) == 0
      if len(newlines):
        blank[0] &= not text_before
        ends = newlines + at
        starts = np.concatenate([[start], ends[:-1] + 1])
        yield np.stack([starts, ends], axis=1), blank
        start, text_before = int(ends[-1]) + 1, bool(seen[-1] > here[-1])
      else:
        text_before |= bool(seen[-1])
      at += len(data)
  if start < at:
    yield np.asarray([[start, at]], np.int64), np.asarray([not text_before])


def _read(handle: int, start: int, stop: int) -> bytes:
  """The bytes from start to stop, fewer where the file ends before."""
  parts, at = [], start
  while at < stop and (part := os.pread(handle, stop - at, at)):
    parts.append(part)
    at += len(part)
  return b"".join(parts)
