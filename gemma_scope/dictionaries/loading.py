"""A name or a folder -> a dictionary, checked, on the device.

A folder is recognised by what it holds. A published name is looked for in the
hub's cache first, without any request; only parameters and config.json are
fetched, never examples.safetensors. What stands before the first "/" of a name
may be a suite of `SUITES` instead, such as the one in the package.
"""

from collections.abc import Callable
import logging
import os
import pathlib
from typing import Any

import jax

from gemma_scope.dictionaries import (
  circuit_tracer,
  gemma_scope_1,
  gemma_scope_2,
  own_format,
  published,
  saelens,
  suite,
)
from gemma_scope.dictionaries.arrays import checked_dtype, place
from gemma_scope.dictionaries.fit import check_published_model
from gemma_scope.errors import CheckpointError
from gemma_scope.weights import hub

_log = logging.getLogger(__name__)

# Name of a suite -> from the rest of a name to an opened dictionary.
SUITES: dict[str, Callable[[str], Any]] = {
  suite.NAME: lambda rest: suite.starter().open(rest)
}

_LARGE_BYTES = 4 << 30


def load(
  name_or_folder: str | os.PathLike,
  *,
  dtype: Any = "float32",
  mesh: jax.sharding.Mesh | None = None,
  mapped: bool | None = None,
  revision: str | None = None,
) -> Any:
  """Loads a dictionary.

  Args:
    name_or_folder: A published name such as "gemma-scope-2-270m-pt/resid_post/
      layer_12_width_16k_l0_medium", a name of the suite in the package such
      as "starter/resid_post/layer_9", or a folder in the layout of Gemma Scope
      1 or 2, SAELens, circuit-tracer or of `dictionary_to_folder`.
    dtype: What weights are kept in; computation is float32 in any case.
    mesh: Spreads latents over its axis `model`; every shard is read from the
      file by itself.
    mapped: Whether arrays stay in their files and are read when they are used,
      part by part. By default those of more than 4 GiB do if there is no mesh.
    revision: Commit, tag or branch on the hub; by default the commit that was
      fetched first.

  Returns:
    The dictionary; of a circuit-tracer set one transcoder for each layer.

  Raises:
    GemmaScopeError: The name is unknown, a file is missing or damaged, or the
      dictionary is not what its name says.
  """
  checked_dtype(dtype)
  folder = pathlib.Path(name_or_folder).expanduser()
  if folder.is_dir():
    opened = open_folder(folder)
  else:
    opened = _open_name(os.fspath(name_or_folder), revision)
  for one in opened if isinstance(opened, tuple) else (opened,):
    if one.about.model != gemma_scope_1.MODEL:
      check_published_model(one)
  large = own_format.stored_bytes(opened) > _LARGE_BYTES and mesh is None
  if large if mapped is None else mapped:
    _log.info("%s stays in its files", name_or_folder)
    return opened
  return place(opened, dtype=dtype, mesh=mesh)


def open_folder(folder: pathlib.Path, name: str | None = None) -> Any:
  """Opens a folder of any known layout; arrays stay in their files.

  Args:
    folder: A local folder.
    name: What the dictionary is called, where the layout does not say.

  Raises:
    CheckpointError: It holds no dictionary that is known here, or a damaged
      one.
  """
  if own_format.is_own(folder):
    return own_format.folder_to_dictionary(folder)
  if (folder / saelens.CONFIG).is_file():
    return saelens.saelens_to_dictionary(folder, name=name)
  if (folder / circuit_tracer.CONFIG).is_file():
    return circuit_tracer.circuit_tracer_to_dictionaries(folder, name=name)
  if (folder / gemma_scope_1.FILE).is_file():
    return gemma_scope_1.gemma_scope_1_to_dictionary(folder, name=name)
  if gemma_scope_2.is_gemma_scope_2(folder):
    return gemma_scope_2.gemma_scope_2_to_dictionary(folder, name=name)
  raise CheckpointError(
    "There is no dictionary in this folder.",
    received=f"{folder}: {_described(folder)}",
    instead="a folder with params.safetensors, params_layer_0.safetensors, "
    "params.npz, sae_weights.safetensors and cfg.json, config.yaml, or "
    "dictionary.json",
  )


def _open_name(name: str, revision: str | None) -> Any:
  first, _, rest = name.partition("/")
  if first in SUITES:
    return SUITES[first](rest)
  if name.startswith((".", "~", os.sep)):
    raise CheckpointError(
      "There is no such folder.",
      received=name,
      instead="an existing folder, or a name that gs.dictionaries.list() gives",
    )
  entry = published.lookup(name)
  needed = [f"{entry.folder}/{file}" for file in entry.files]
  config = f"{entry.folder}/config.json"
  repository = f"google/{entry.repository}"
  found = hub.files(repository, needed, optional=[config], revision=revision)
  return open_folder(found[needed[0]].parent, entry.name)


def _described(folder: pathlib.Path) -> str:
  """What a folder holds, and the dictionaries below it."""
  below = sorted({p.parent for p in folder.glob("*/*params*.safetensors")})
  below += sorted({p.parent for p in folder.glob("*/*/*params*.safetensors")})
  if below:
    names = [str(p.relative_to(folder)) for p in below[:3]]
    return f"{len(below)} dictionaries below, such as {', '.join(names)}"
  names = sorted(p.name for p in folder.iterdir())
  return f"holds {', '.join(names[:8]) or 'nothing'}"
