"""One writer a host: a lock that dies with its owner.

The lock is the kernel's (flock) on a file that names its owner, so a killed
writer leaves no lock behind, only its name, and no clock or process table has
to be believed. File systems without flock are refused.
"""

import datetime
import errno
import fcntl
import json
import logging
import os
import pathlib
import platform

from gemma_scope.activations.store import errors

_log = logging.getLogger(__name__)


class WriterLock:
  """Held from construction until `release`, or the end of the process."""

  def __init__(self, path: pathlib.Path):
    """Takes the lock.

    Args:
      path: The lock's file; it stays when the lock is released.

    Raises:
      StoreError: If another writer holds it, in this process or elsewhere.
    """
    self._path = path
    self._file = open(path, "a+")  # noqa: SIM115  held for the writer's life
    try:
      fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
      owner = _owner(path)
      self._file.close()
      raise _refused(path, owner, error) from error
    if left := _owner(path):
      _log.warning("A writer ended without closing the store: %s", left)
    self._write(_this_process())

  def release(self) -> None:
    """Lets go; again does nothing."""
    if not self._file.closed:
      self._write("")
      self._file.close()

  def _write(self, text: str) -> None:
    self._file.seek(0)
    self._file.truncate()
    self._file.write(text)
    self._file.flush()


def _owner(path: pathlib.Path) -> str:
  return path.read_text(encoding="utf-8", errors="replace").strip()


def _this_process() -> str:
  now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
  owner = {"process": os.getpid(), "machine": platform.node(), "since": now}
  return json.dumps(owner)


def _refused(
  path: pathlib.Path, owner: str, error: OSError
) -> errors.StoreError:
  if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
    return errors.StoreError(
      "Another process is writing to this store.",
      received=f"{path}, held by {owner or 'a process that is starting'}",
      instead="wait until it ends, end it, or capture into another folder",
    )
  return errors.StoreError(
    "This file system has no locks, so two writers could meet unnoticed.",
    received=f"{path}: {os.strerror(error.errno or 0)}",
    instead="a folder on a local disk, NFS or another file system with flock",
  )
