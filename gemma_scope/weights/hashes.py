"""sha256 of large files, computed once.

A result is remembered in the cache under the file's path, size and time of
change. Where the cache cannot be written, it is computed each time.
"""

import hashlib
import json
import os
import pathlib

from gemma_scope.weights import cache, folders


def compute_sha256(path: str | os.PathLike) -> str:
  """The lower-case hexadecimal sha256 of a local file, remembered nowhere."""
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def file_sha256(path: str | os.PathLike) -> str:
  """The lower-case hexadecimal sha256 of a local file.

  Args:
    path: The file; about a second for every GB if it was not seen before.
  """
  path = pathlib.Path(path).resolve()
  state = path.stat()
  seen = {
    "path": str(path),
    "size": state.st_size,
    "changed": state.st_mtime_ns,
  }
  name = hashlib.sha256(str(path).encode()).hexdigest()[:32]
  memo = cache.folder() / "sha256" / f"{name}.json"
  try:
    known = json.loads(memo.read_bytes())
    if {key: known[key] for key in seen} == seen:
      return str(known["sha256"])
  except (OSError, ValueError, KeyError, TypeError):
    pass
  digest = compute_sha256(path)
  try:
    with folders.new_file(memo) as file:
      file.write(json.dumps({**seen, "sha256": digest}).encode())
  except OSError:
    pass  # It only costs time.
  return digest
