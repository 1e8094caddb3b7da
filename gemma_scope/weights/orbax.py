"""An official Orbax checkpoint, local or on gs://, as a checkpoint.

The structure and shapes are read at once, each array when it is asked for, so
vision parts, optimizer states and the rest are never fetched. Orbax takes
seconds to import, which happens only inside these functions.
"""

from collections.abc import Callable, Mapping
import functools
import json
import os
from typing import Any

from etils import epath
import numpy as np

from gemma_scope import errors
from gemma_scope.weights import checkpoint, flax_tree, tokenizer_files

# Lies in every folder that holds arrays; tells their tree.
_STRUCTURE = "_METADATA"
_DATABASE = "manifest.ocdbt"
# Where trainers put the parameters inside the folder of a step.
_ITEMS = ("", "default", "params", "state")
_Key = tuple[str, ...]


def is_orbax(path: str | os.PathLike) -> bool:
  """Whether a folder, local or gs://, was written by Orbax."""
  return _item_folder(as_path(path)) is not None


def open_orbax(path: str | os.PathLike) -> checkpoint.Checkpoint:
  """Opens an Orbax checkpoint; reads its structure only.

  Args:
    path: The checkpoint's folder, local or gs://.

  Returns:
    A checkpoint of tensors in the stored dtypes.

  Raises:
    CheckpointError: no Orbax checkpoint, no Gemma 3, or damaged.
  """
  source = os.fspath(path)
  place = as_path(path)
  folder = _item_folder(place)
  if folder is None:
    raise errors.CheckpointError(
      "The folder was not written by Orbax, or not to its end.",
      received=f"{source}: no {_STRUCTURE}",
      instead="the folder that holds _METADATA and manifest.ocdbt",
    )
  leaves = flax_tree.flax_tree_to_leaves(_read_structure(folder))
  lengths = {
    name: leaf.shape[0] if leaf.shape else 0
    for name, (_, leaf) in leaves.items()
  }
  # Slices of one stack are read by one fetch; it stays while they may be asked.
  read_stack = functools.cache(functools.partial(_read_array, folder))
  tensors = {}
  for name, (stored, index) in flax_tree.unstack_names(lengths).items():
    key, leaf = leaves[stored]
    read = functools.partial(_read_array, folder, key)
    if index is not None:
      read = functools.partial(_read_slice, read_stack, key, index)
    shape = tuple(leaf.shape[0 if index is None else 1 :])
    tensors[name] = checkpoint.LazyTensor(shape, np.dtype(leaf.dtype), read)
  checkpoint.check_complete(tensors, source)
  return checkpoint.Checkpoint(
    tensors=tensors,
    source=source,
    format="orbax",
    tokenizer=tokenizer_files.find_tokenizer(place, place.parent),
  )


def as_path(path: str | os.PathLike) -> epath.Path:
  """A path, local ones made absolute, as Orbax asks for."""
  text = os.fspath(path)
  return epath.Path(text if "://" in text else os.path.abspath(text))


def _item_folder(folder: epath.Path) -> epath.Path | None:
  """The folder itself, or the one inside that holds the arrays."""
  for item in _ITEMS:
    place = folder / item if item else folder
    if (place / _STRUCTURE).exists():
      return place
  return None


def _read_structure(folder: epath.Path) -> Mapping[str, Any]:
  """The tree of the checkpoint; its leaves know shape and dtype."""
  import orbax.checkpoint as ocp

  try:
    # Orbax finds this out too, but with array reads left hanging.
    stored = json.loads((folder / _STRUCTURE).read_text())
    if stored.get("use_ocdbt") and not (folder / _DATABASE).exists():
      raise FileNotFoundError(f"{_DATABASE} is missing")
    with ocp.PyTreeCheckpointer() as checkpointer:
      found = checkpointer.metadata(folder).item_metadata
    if found is None:
      raise ValueError("the files that describe its arrays are missing")
    return found.tree
  except Exception as error:  # Orbax and TensorStore share no base class.
    raise _unreadable(folder, "its structure", error) from error


def _read_array(folder: epath.Path, key: _Key) -> np.ndarray:
  """Fetches one array, and nothing else, as NumPy."""
  import orbax.checkpoint as ocp

  restore_args = ocp.RestoreArgs(restore_type=np.ndarray)
  try:
    with ocp.PyTreeCheckpointer() as checkpointer:
      found = checkpointer.restore(
        folder,
        args=ocp.args.PyTreeRestore(
          item=_only(key, 0),
          restore_args=_only(key, restore_args),
          partial_restore=True,
        ),
      )
  except Exception as error:  # Orbax and TensorStore share no base class.
    raise _unreadable(folder, "/".join(key), error) from error
  for part in key:
    found = found[part]
  return found


def _only(key: _Key, leaf: Any) -> Any:
  """The tree that holds one leaf."""
  for part in reversed(key):
    leaf = {part: leaf}
  return leaf


def _read_slice(
  read_stack: Callable[[_Key], np.ndarray], key: _Key, index: int
) -> np.ndarray:
  return read_stack(key)[index]


def _unreadable(
  folder: epath.Path, part: str, error: Exception
) -> errors.CheckpointError:
  reason = str(error).splitlines()[0] if str(error) else repr(error)
  return errors.CheckpointError(
    "The Orbax checkpoint cannot be read.",
    received=f"{folder}: {part}: {reason[:200]}",
    instead="the whole checkpoint; copy or download it again",
  )
