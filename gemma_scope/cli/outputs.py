"""Files that a verb writes: checked before the work, complete or not there."""

import os
import pathlib

from gemma_scope.errors import GemmaScopeError
from gemma_scope.weights import folders


def check_destination(path: str, option: str) -> pathlib.Path:
  """Refuses early what could only fail after minutes of work.

  Args:
    path: Where the file shall go.
    option: The option that names it, for the error.

  Returns:
    The path, made absolute.

  Raises:
    GemmaScopeError: If no file can be put there.
  """
  target = pathlib.Path(path).expanduser().absolute()
  if target.is_dir() or not target.name:
    raise GemmaScopeError(
      f"{option} names a folder; it must name a file.",
      received=path,
      instead=f"{option} {target / 'report'}{target.suffix}",
    )
  if target.exists() and not target.is_file():
    raise GemmaScopeError(
      f"{option} names something that is no ordinary file.",
      received=path,
      instead=f"{option} with the name of a new file",
    )
  folder = target.parent
  if not folder.is_dir():
    raise GemmaScopeError(
      f"The folder for {option} does not exist.",
      received=path,
      instead=f"mkdir -p {folder}, or {option} {target.name}",
    )
  if not os.access(folder, os.W_OK | os.X_OK):
    raise GemmaScopeError(
      f"The folder for {option} cannot be written.",
      received=str(folder),
      instead=f"{option} with a path in a folder of yours",
    )
  return target


def write_text(path: pathlib.Path, text: str) -> None:
  """Writes a whole UTF-8 file, or leaves what was there as it was.

  Raises:
    GemmaScopeError: If the system refuses (disk full, folder gone).
  """
  try:
    with folders.new_file(path) as file:
      file.write(text.encode("utf-8"))
  except OSError as error:
    raise GemmaScopeError(
      "The file could not be written; nothing was changed.",
      received=f"{path}: {error.strerror or error}",
      instead="a path on a disk with room, in a folder that you may write",
    ) from error
