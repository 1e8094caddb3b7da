"""A corpus to a folder of tokens (`token_folder`), once and for all models.

Encoding is the slow part of reading text: a core encodes less than a GPU runs.
Chunks of documents are encoded by worker processes and appended in order, to a
folder under a hidden name that becomes the target when all is there. A run that
was cut off goes on where it stopped: what counts is in `ends.bin`, which is
written behind the tokens it speaks of.
"""

from collections.abc import Callable, Iterator
import contextlib
import fcntl
import json
import logging
import os
import pathlib
import shutil
from typing import Any, BinaryIO

import numpy as np

from gemma_scope.activations.corpus import chunks, token_folder
from gemma_scope.activations.corpus.corpus import Corpus, digest_of
from gemma_scope.activations.corpus.tokenise import Tokenise, tokenizer_digest
from gemma_scope.errors import ConfigError
from gemma_scope.manifest import make_manifest
from gemma_scope.model.tokenizer import Tokenizer
from gemma_scope.weights.hashes import compute_sha256

_log = logging.getLogger(__name__)

CHUNK = 64  # documents encoded at once
JOB = "job.json"

Progress = Callable[[int, int, int], None]  # documents, of how many, tokens


def corpus_to_tokens(
  corpus: Corpus,
  tokenizer: Tokenizer,
  folder: str | os.PathLike[str],
  *,
  control_tokens: bool = False,
  workers: int = 0,
  progress: Progress | None = None,
) -> Corpus:
  """Encodes a corpus into a folder, or opens the folder if that was done.

  Args:
    corpus: The documents.
    tokenizer: The model's.
    folder: Where to write; `Corpus.open(folder)` reads it.
    control_tokens: Whether control tokens written in a text are obeyed.
    workers: Worker processes; needs `if __name__ == "__main__":` in a script.
    progress: Called after every chunk.

  Returns:
    The corpus of the folder; document i is document i of `corpus`.

  Raises:
    ConfigError: If the folder holds something else, or another process writes
      it.
    TextError: If a document cannot be encoded.
  """
  folder = pathlib.Path(os.path.abspath(folder))
  work = Tokenise(corpus, tokenizer, control_tokens)
  job = {
    "corpus": corpus.digest,
    "tokenizer": tokenizer_digest(tokenizer),
    "control_tokens": control_tokens,
  }
  if folder.exists():
    return _already_there(folder, job)
  partial = folder.with_name(f".{folder.name}.partial")
  partial.mkdir(parents=True, exist_ok=True)
  with _locked(partial):
    if folder.exists():  # by a process that has just ended
      shutil.rmtree(partial)
      return _already_there(folder, job)
    with _Appender(partial, job) as target:
      for found in _encode(work, target.documents, workers):
        target.append(found["ids"], found["lengths"])
        if progress is not None:
          progress(target.documents, len(corpus), target.tokens)
      target.finish(corpus, job)
    os.replace(partial, folder)
    (folder / JOB).unlink()
  return Corpus.open(folder)


def _encode(
  work: Tokenise, start: int, workers: int
) -> Iterator[dict[str, np.ndarray]]:
  """Encodes the documents from `start` on, in order."""
  left = len(work.corpus) - start
  if not left:
    return
  numbers = chunks.document_chunks(left, CHUNK)
  results = chunks.run(numbers, _Encode(work, start), workers=workers)
  try:
    yield from results
  finally:
    results.close()  # type: ignore[attr-defined]


class _Encode:
  """Numbers from `start` to one array of ids and the lengths of documents."""

  def __init__(self, work: Tokenise, start: int):
    self.work, self.start = work, start

  def __call__(self, numbers: list[int]) -> dict[str, np.ndarray]:
    found = self.work([self.start + number for number in numbers])
    return {
      "ids": np.concatenate(found).astype(token_folder.ID),
      "lengths": np.asarray([len(ids) for ids in found], token_folder.END),
    }


class _Appender:
  """The two files of a folder that is being written."""

  def __init__(self, folder: pathlib.Path, job: dict[str, Any]):
    self._folder = folder
    known = folder / JOB
    if not known.exists() or json.loads(known.read_bytes()) != job:
      for name in (token_folder.TOKENS, token_folder.ENDS):
        (folder / name).unlink(missing_ok=True)
      known.write_text(json.dumps(job))
    self._ids, self._ends = (
      open(folder / name, "ab")  # noqa: SIM115
      for name in (token_folder.TOKENS, token_folder.ENDS)
    )
    self.documents, self.tokens = self._go_on()
    if self.documents:
      _log.info("going on behind document %d", self.documents)

  def _go_on(self) -> tuple[int, int]:
    """Cuts both files to the last document that is whole."""
    ends = np.fromfile(self._folder / token_folder.ENDS, token_folder.END)
    there = os.fstat(self._ids.fileno()).st_size // token_folder.ID.itemsize
    documents = int(np.searchsorted(ends, there, side="right"))
    tokens = int(ends[documents - 1]) if documents else 0
    _cut(self._ids, tokens * token_folder.ID.itemsize)
    _cut(self._ends, documents * token_folder.END.itemsize)
    return documents, tokens

  def append(self, ids: np.ndarray, lengths: np.ndarray) -> None:
    """Adds documents; ids are on the disk before their ends are written."""
    self._ids.write(ids.tobytes())
    _flush(self._ids)
    ends = self.tokens + np.cumsum(lengths, dtype=token_folder.END)
    self._ends.write(ends.tobytes())
    self._ends.flush()
    self.documents += len(lengths)
    self.tokens += len(ids)

  def finish(self, corpus: Corpus, job: dict[str, Any]) -> None:
    """Writes the manifest."""
    _flush(self._ends)
    names = (token_folder.TOKENS, token_folder.ENDS)
    sums = {name: compute_sha256(self._folder / name) for name in names}
    about = {
      "format": token_folder.FORMAT,
      "version": token_folder.VERSION,
      "documents": self.documents,
      "tokens": self.tokens,
      "sha256": sums,
      "tokenizer": job["tokenizer"],
      "job": digest_of(job),
      "manifest": make_manifest({**job, "origin": corpus.origin}).to_dict(),
    }
    with open(self._folder / token_folder.MANIFEST, "wb") as file:
      file.write(json.dumps(about, indent=2, ensure_ascii=False).encode())
      _flush(file)

  def __enter__(self) -> "_Appender":
    return self

  def __exit__(self, *_: object) -> None:
    self._ids.close()
    self._ends.close()


def _already_there(folder: pathlib.Path, job: dict[str, Any]) -> Corpus:
  found = None
  if token_folder.is_token_folder(folder):
    found = token_folder.TokenFolder(folder)
  if found is None or found.manifest["job"] != digest_of(job):
    raise ConfigError(
      "The folder to write holds something else.",
      received=str(folder),
      instead="another folder; one that exists is opened only if it has the "
      "tokens of this very corpus, tokenizer and options",
    )
  return Corpus([found])


@contextlib.contextmanager
def _locked(folder: pathlib.Path) -> Iterator[None]:
  """Keeps other processes out of the folder."""
  handle = os.open(folder, os.O_RDONLY)
  try:
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    yield
  except BlockingIOError as error:
    raise ConfigError(
      "Another process writes these tokens.",
      received=str(folder),
      instead="wait for it, or write to another folder",
    ) from error
  finally:
    os.close(handle)


def _cut(file: BinaryIO, size: int) -> None:
  file.truncate(size)
  file.seek(0, os.SEEK_END)


def _flush(file: BinaryIO) -> None:
  file.flush()
  os.fsync(file.fileno())
