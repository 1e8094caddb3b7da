"""Makes a store's folder, or refuses to go on with another store."""

from collections.abc import Mapping
import json
import pathlib
from typing import Any

from gemma_scope.activations.store import errors
from gemma_scope.activations.store import layout as layouts
from gemma_scope.manifest import Manifest

# What of a manifest must agree for a store to be gone on with.
_IDENTITY = ("model", "source", "sha256", "config", "seed")
# What may lie in the folder of a store that was not made to the end.
_BEFORE_THE_MANIFEST = (".lock", ".tmp")


def check_folder(path: pathlib.Path) -> None:
  """Refuses what no store can be made of, or gone on with; makes nothing.

  Raises:
    StoreError: If it is a file, or holds files and no store.
  """
  if path.exists() and not path.is_dir():
    raise errors.StoreError(
      "A store is a folder; this is a file.",
      received=str(path),
      instead="the name of a new folder",
    )
  entries = path.iterdir() if path.exists() else ()
  names = [e.name for e in entries if e.suffix not in _BEFORE_THE_MANIFEST]
  if names and layouts.MANIFEST not in names:
    raise errors.StoreError(
      "The folder holds something that is no activation store.",
      received=f"{path}: {names[0]}" + " …" * (len(names) > 1),
      instead="a new folder, or that of a store to go on with",
    )


def make_folder(path: pathlib.Path) -> None:
  """Makes the folder, if it is not there.

  Raises:
    StoreError: If it cannot be made, or `check_folder` refuses it.
  """
  check_folder(path)
  try:
    path.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise errors.StoreError(
      "The folder of the store cannot be made.",
      received=f"{path}: {error.strerror}",
      instead="a folder in one that you may write",
    ) from error


def remove_leftovers(
  path: pathlib.Path, layout: layouts.Layout, host: int
) -> None:
  """Removes the temporary files of writers of this host that were killed.

  What all hosts write is cleared up where there is one host only: another may
  be writing it just now.
  """
  found = list(path.glob(f"commits/.host_{host:04d}.json.*.tmp"))
  for left in path.glob("shards/.*.tmp"):
    if int(left.name.split(".")[1]) % layout.hosts == host:
      found.append(left)
  if layout.hosts == 1:
    found += [*path.glob(".*.json.*.tmp"), *path.glob("*/.zarr.json.*.tmp")]
  for left in found:
    left.unlink(missing_ok=True)


def make_or_check(
  path: pathlib.Path, layout: layouts.Layout, manifest: Manifest
) -> None:
  """Writes the manifest, or compares with the one that is there.

  Several hosts may do this at once: each replaces the file by its equal.

  Raises:
    StoreError: If the store there differs in layout, model or options.
  """
  if not (path / layouts.MANIFEST).exists():
    layouts.write_manifest(path, layout, manifest)
    layouts.write_zarr(path, layout, 0)
  there, made_with = layouts.read_manifest(path)
  before = _flat(there.to_dict()) | _flat(_identity(made_with))
  now = _flat(layout.to_dict()) | _flat(_identity(manifest))
  differing = [
    f"{key.removeprefix('config.')} was {before.get(key)}, is {now.get(key)}"
    for key in sorted({*before, *now})
    if before.get(key) != now.get(key)
  ]
  if differing:
    raise errors.StoreError(
      "The store was captured with other options.",
      received="; ".join(differing),
      instead="the same options as before, or another folder",
    )


def _identity(manifest: Manifest) -> dict[str, Any]:
  found = manifest.to_dict()
  return {key: found[key] for key in _IDENTITY}


def _flat(tree: Any, prefix: str = "") -> dict[str, str]:
  """Leaves of a tree of JSON values by dotted name, as JSON text."""
  if not isinstance(tree, Mapping):
    return {prefix: json.dumps(tree)}
  found: dict[str, str] = {}
  for key, value in tree.items():
    found |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
  return found
