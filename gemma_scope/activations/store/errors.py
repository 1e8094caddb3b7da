"""What can be wrong with a store, told in three parts."""

import contextlib
import errno
import os
import pathlib

from gemma_scope.errors import GemmaScopeError


class StoreError(GemmaScopeError):
  """An activation store is missing, damaged, in use or not the one meant."""


def damaged(path: pathlib.Path, found: str) -> StoreError:
  """The error for a file of a store that is not as it was written."""
  return StoreError(
    "The store is damaged.",
    received=f"{path}: {found}",
    instead="a copy of this file from a backup, or capture into a new folder",
  )


@contextlib.contextmanager
def told_what_is_safe(store: pathlib.Path, rows: int):
  """Says, where the system refuses to write, that committed rows are safe.

  Args:
    store: The folder written to.
    rows: How many rows of this host are committed.

  Raises:
    StoreError: In the place of an OSError.
  """
  try:
    yield
  except OSError as error:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    reason = os.strerror(error.errno or 0)
    raise StoreError(
      "The disk is full." if full else "The store could not be written.",
      received=f"{store}: {reason}; {rows:,} rows are committed and safe",
      instead=("free some space, then " if full else "mend that, then ")
      + "start the same capture again: it goes on where the last commit was",
    ) from error
