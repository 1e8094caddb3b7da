"""Files and folders that appear whole or not at all.

Everything is written under a temporary name in the same place, flushed to the
disk, and then renamed. What was written before an error is removed.
"""

from collections.abc import Iterator
import contextlib
import os
import pathlib
import secrets
import shutil
from typing import BinaryIO

from gemma_scope import errors


def temporary_name(path: pathlib.Path) -> pathlib.Path:
  """A hidden name beside `path` that nothing else uses."""
  return path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")


@contextlib.contextmanager
def new_file(path: str | os.PathLike) -> Iterator[BinaryIO]:
  """Opens a file that replaces `path` when the block ends without an error.

  Args:
    path: Where the file is to lie; missing folders are made.

  Yields:
    The file, opened for writing (and seeking).
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  made = temporary_name(path)
  try:
    with open(made, "xb") as file:
      yield file
      file.flush()
      os.fsync(file.fileno())
    os.replace(made, path)
  except BaseException:
    made.unlink(missing_ok=True)
    raise


@contextlib.contextmanager
def new_folder(path: str | os.PathLike) -> Iterator[pathlib.Path]:
  """Makes a folder that becomes `path` when the block ends without an error.

  Args:
    path: Where the folder is to lie; it must not exist, or be empty.

  Yields:
    The folder to write into.

  Raises:
    CheckpointError: `path` exists and is not an empty folder.
  """
  path = pathlib.Path(os.path.abspath(path))
  if path.exists() and not (path.is_dir() and not any(path.iterdir())):
    raise errors.CheckpointError(
      "The folder to write already exists.",
      received=str(path),
      instead="another folder, or remove this one first",
    )
  path.parent.mkdir(parents=True, exist_ok=True)
  made = temporary_name(path)
  try:
    made.mkdir()
    yield made
    os.replace(made, path)
  except BaseException:
    shutil.rmtree(made, ignore_errors=True)
    raise
