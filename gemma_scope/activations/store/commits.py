"""How far each host is: one small file, replaced whole.

A commit says how many rows of a host count, and all that going on from there
depends on: the token pipeline's state, checksums of the shard that is not full
yet, and the sums behind the statistics. Rows are flushed to the disk before the
commit that counts them, and bytes behind the last counted row are nobody's. So
a kill at any moment costs the rows since the last commit, which are computed
again, and none is lost or there twice.
"""

import base64
from collections.abc import Mapping
import dataclasses
import pathlib
from typing import Any

import numpy as np

from gemma_scope.activations.store import errors, layout

_BYTES, _ARRAY = "__bytes__", "__array__"


@dataclasses.dataclass(frozen=True)
class Commit:
  """The state of one host's part of a store.

  Attributes:
    rows: Rows that count.
    batches: Batches of the pipeline that they come from.
    finished: Whether the pipeline has no more.
    checksums: Array -> CRC-32 of the counted bytes of the shard that is not
      full; 0 where that is empty.
    norms: Site's array -> [sum of norms, sum of squared norms] over the rows.
    state: What `TokenPipeline.restore` takes to go on; None at the start.
  """

  rows: int = 0
  batches: int = 0
  finished: bool = False
  checksums: Mapping[str, int] = dataclasses.field(default_factory=dict)
  norms: Mapping[str, tuple[float, float]] = dataclasses.field(
    default_factory=dict
  )
  state: Any = None


def write_commit(store: pathlib.Path, host: int, commit: Commit) -> None:
  """Makes the rows of a commit count; they must be on the disk by now."""
  content = dataclasses.asdict(commit) | {"state": to_json(commit.state)}
  layout.write_json(layout.commit_path(store, host), content)


def read_commit(store: pathlib.Path, host: int) -> Commit:
  """How far a host is; nothing yet where it has not committed.

  Raises:
    StoreError: If the file is damaged.
  """
  path = layout.commit_path(store, host)
  if not path.exists():
    return Commit()
  found = layout.read_json(path)
  try:
    found["norms"] = {k: (a, b) for k, (a, b) in found["norms"].items()}
    return Commit(**found | {"state": from_json(found["state"])})
  except (KeyError, TypeError, ValueError, AttributeError) as error:
    raise errors.damaged(path, repr(error)) from error


def write_shard(
  store: pathlib.Path, chunk: int, rows: int, checksums: Mapping[str, int]
) -> None:
  """Keeps the checksums of a full shard."""
  content = {"rows": rows, "checksums": dict(checksums)}
  layout.write_json(layout.shard_path(store, chunk), content)


def read_shard(store: pathlib.Path, chunk: int) -> dict[str, int]:
  """Array -> CRC-32 of a full shard.

  Raises:
    StoreError: If the file is missing or damaged.
  """
  path = layout.shard_path(store, chunk)
  try:
    return {k: int(v) for k, v in layout.read_json(path)["checksums"].items()}
  except (KeyError, TypeError, ValueError, AttributeError) as error:
    if isinstance(error, errors.StoreError):
      raise
    raise errors.damaged(path, repr(error)) from error


def to_json(value: Any) -> Any:
  """A pipeline's state as JSON values; bytes and arrays keep their type.

  Raises:
    StoreError: If the state holds something else.
  """
  if value is None or isinstance(value, bool | int | float | str):
    return value
  if isinstance(value, bytes):
    return {_BYTES: base64.b64encode(value).decode()}
  if isinstance(value, Mapping):
    return {str(key): to_json(part) for key, part in value.items()}
  if isinstance(value, list | tuple):
    return [to_json(part) for part in value]
  if hasattr(value, "__array__"):
    array = np.asarray(value)
    raw = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
    return {_ARRAY: raw, "dtype": array.dtype.name, "shape": list(array.shape)}
  raise errors.StoreError(
    "The pipeline's state cannot be kept in a store.",
    received=type(value).__name__,
    instead="a tree of dicts and lists of numbers, text, bytes and arrays",
  )


def from_json(value: Any) -> Any:
  """The inverse of `to_json`; tuples come back as lists."""
  if isinstance(value, list):
    return [from_json(part) for part in value]
  if not isinstance(value, dict):
    return value
  if _BYTES in value:
    return base64.b64decode(value[_BYTES])
  if _ARRAY in value:
    raw = base64.b64decode(value[_ARRAY])
    flat = np.frombuffer(raw, np.dtype(value["dtype"]))
    return flat.reshape(value["shape"]).copy()
  return {key: from_json(part) for key, part in value.items()}
