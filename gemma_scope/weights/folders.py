"""Folders and files that appear whole or not at all.

Everything is written under a temporary name in the same place, flushed to the
disk, and then renamed. What was written before an error is removed.
"""

from collections.abc import Iterator
import contextlib
import os
import pathlib
import shutil
import tempfile
from typing import BinaryIO

from gemma_scope import errors


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
  handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
  try:
    with open(handle, "wb") as file:
      yield file
      file.flush()
      os.fsync(file.fileno())
    os.chmod(name, 0o666 & ~_umask())
    os.replace(name, path)
  except BaseException:
    pathlib.Path(name).unlink(missing_ok=True)
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
  made = pathlib.Path(
    tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent)
  )
  try:
    yield made
    os.chmod(made, 0o777 & ~_umask())
    os.replace(made, path)
  except BaseException:
    shutil.rmtree(made, ignore_errors=True)
    raise


def _umask() -> int:
  """The process's umask; temporary names are made readable by nobody else."""
  mask = os.umask(0)
  os.umask(mask)
  return mask
