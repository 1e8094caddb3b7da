"""The library's own folders: any dictionary, exactly, or in a quarter the size.

    dictionary.json      classes, axes, sites and other static parts
    arrays.safetensors   arrays as they are, or int8 rows with a scale for each
    manifest.json

With `int8`, every matrix is stored as round(levels * row / max |row|), one
float32 scale a row; a row is what one latent reads or writes (of an affine
skip: what one input writes). Biases and thresholds stay exact. `int8_loss`
measures what that costs; `calibration` makes it cost less. Fewer levels than
127 take no less room, unless the file is compressed afterwards.
"""

from collections.abc import Mapping
import dataclasses
import functools
import json
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from penzai import pz

from gemma_scope import axes
from gemma_scope.dictionaries import activations
from gemma_scope.dictionaries.arrays import map_arrays, named, names_of
from gemma_scope.dictionaries.cross_layer import CrossLayer, LayerPart
from gemma_scope.dictionaries.crosscoder import Crosscoder
from gemma_scope.dictionaries.protocol import About, Dictionary
from gemma_scope.dictionaries.quality import Quality, quality
from gemma_scope.dictionaries.sae import Sae
from gemma_scope.dictionaries.tensor_files import read_tensors, write_tensors
from gemma_scope.dictionaries.transcoder import Transcoder
from gemma_scope.errors import CheckpointError, ConfigError
from gemma_scope.manifest import make_manifest
from gemma_scope.sites import Site
from gemma_scope.weights import folders

FILE, ARRAYS = "dictionary.json", "arrays.safetensors"
LEVELS = 127  # the most that int8 rows can have on either side of zero
_VERSION = 1
_CLASSES = {
  cls.__name__: cls
  for cls in (
    Sae,
    Transcoder,
    Crosscoder,
    CrossLayer,
    LayerPart,
    *activations.ACTIVATIONS.values(),
  )
}
_SCALE = " scale"


def dictionary_to_folder(
  dictionary: Dictionary, folder: str | os.PathLike, *, int8: bool = False
) -> pathlib.Path:
  """Writes a dictionary of any kind.

  Args:
    dictionary: One of this package's.
    folder: Where; it must not exist, or be empty.
    int8: Whether matrices are rounded to int8 rows.

  Returns:
    The folder.
  """
  content, tensors = dictionary_to_tensors(dictionary, LEVELS if int8 else None)
  about = dictionary.about
  config = {"int8": int8, "kind": about.kind, "name": about.name}
  manifest = make_manifest(config, model=about.model, content=tensors)
  with folders.new_folder(folder) as made:
    write_tensors(made / ARRAYS, tensors)
    (made / FILE).write_text(json.dumps(content, indent=2) + "\n")
    (made / "manifest.json").write_text(manifest.to_json() + "\n")
  return pathlib.Path(folder)


def folder_to_dictionary(folder: str | os.PathLike) -> Any:
  """Opens what `dictionary_to_folder` wrote.

  Exact arrays stay mapped; int8 rows are unpacked to float32.

  Args:
    folder: With dictionary.json and arrays.safetensors.

  Raises:
    CheckpointError: A file is missing or damaged, or of a later version.
  """
  folder = pathlib.Path(folder)
  try:
    content = json.loads((folder / FILE).read_bytes())
  except (OSError, ValueError) as error:
    raise _unreadable(folder / FILE, error) from error
  return tensors_to_dictionary(
    content, read_tensors(folder / ARRAYS), folder / FILE
  )


def dictionary_to_tensors(
  dictionary: Dictionary, levels: int | None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """A dictionary as what dictionary.json and arrays.safetensors hold.

  Args:
    dictionary: One of this package's.
    levels: Steps on either side of zero that int8 rows are rounded to, at most
      127; None keeps the arrays as they are.
  """
  tensors: dict[str, np.ndarray] = {}
  tree = _describe(dictionary, "", tensors, levels)
  return {"version": _VERSION, "dictionary": tree}, tensors


def tensors_to_dictionary(
  content: Any,
  tensors: Mapping[str, np.ndarray],
  source: str | os.PathLike,
) -> Any:
  """The inverse of `dictionary_to_tensors`.

  Args:
    content: What dictionary.json holds.
    tensors: What arrays.safetensors holds.
    source: Where both are from, for errors.

  Raises:
    CheckpointError: They are not of one dictionary, or of a later version.
  """
  try:
    if content["version"] != _VERSION:
      raise ValueError(f"version {content['version']}")
    return _restore(content["dictionary"], tensors)
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise _unreadable(source, error) from error


def _unreadable(source: object, error: Exception) -> CheckpointError:
  return CheckpointError(
    "The folder's dictionary cannot be read.",
    received=f"{source}: {error!r}",
    instead="a folder written by dictionary_to_folder of this version",
  )


def int8_loss(
  dictionary: Dictionary, x: Any, target: Any = None, *, levels: int = LEVELS
) -> tuple[Quality, Quality]:
  """What int8 rows cost: quality before and after, on the same vectors.

  Args:
    dictionary: Any.
    x: Plain vectors, [tokens, d] or [layer, tokens, d].
    target: What it is to rebuild; `x` by default.
    levels: Steps on either side of zero.

  Returns:
    (quality as it is, quality after rounding).
  """
  target = x if target is None else target
  after = rounded(dictionary, levels)
  return quality(dictionary, x, target), quality(after, x, target)


def rounded(dictionary: Any, levels: int = LEVELS) -> Any:
  """The dictionary that is read back after it was stored in int8 rows.

  Args:
    dictionary: Any.
    levels: Steps on either side of zero.
  """
  return map_arrays(functools.partial(_rounded, levels=levels), dictionary)


def _rounded(array: pz.nx.NamedArray, levels: int) -> pz.nx.NamedArray:
  if len(array.named_axes) < 2:
    return array
  names = names_of(array)
  data = np.asarray(array.data_array)
  values, scale = _quantise(data, names, levels)
  return pz.nx.wrap(jnp.asarray(values * scale), *names)


def _row_axes(names: tuple[str, ...]) -> tuple[int, ...]:
  """Positions of the axes that run inside a row."""
  inside = axes.OUTPUT if axes.OUTPUT in names else axes.INPUT
  return (names.index(inside),)


def row_scales(
  array: np.ndarray, names: tuple[str, ...], levels: int
) -> np.ndarray:
  """The float32 step of each int8 row; its axis has length one.

  Args:
    array: A matrix.
    names: Its axes.
    levels: Steps on either side of zero.

  Raises:
    ConfigError: int8 has no so many levels.
  """
  if not 1 <= levels <= LEVELS:
    raise ConfigError(
      "int8 rows have 1 to 127 levels on either side of zero.",
      received=f"levels={levels}",
      instead=f"levels={LEVELS}, or fewer where the file is compressed",
    )
  most = np.abs(array).max(axis=_row_axes(names), keepdims=True)
  return np.where(most > 0, most / levels, 1).astype(np.float32)


def _quantise(
  array: np.ndarray, names: tuple[str, ...], levels: int
) -> tuple[np.ndarray, np.ndarray]:
  """int8 values and float32 scales; their product is nearest to the array."""
  array = np.asarray(array, np.float32)
  scale = row_scales(array, names, levels)
  return np.rint(array / scale).astype(np.int8), scale


def _describe(
  value: Any, path: str, tensors: dict[str, np.ndarray], levels: int | None
) -> Any:
  """A value as JSON; its arrays go into `tensors` under their path."""
  if isinstance(value, pz.nx.NamedArray):
    names = names_of(value)
    array = np.asarray(value.data_array)
    if levels is not None and len(names) > 1:
      rows = _quantise(array, names, levels)
      tensors[path], tensors[path + _SCALE] = rows
    else:
      tensors[path] = array
    return {"array": path, "axes": names}
  if isinstance(value, About):
    return {"about": _about_to_json(value)}
  if dataclasses.is_dataclass(value):
    fields = {
      f.name: _describe(
        getattr(value, f.name), f"{path}/{f.name}".strip("/"), tensors, levels
      )
      for f in dataclasses.fields(value)
    }
    return {"class": type(value).__name__, "fields": fields}
  if isinstance(value, tuple):
    items = [
      _describe(v, f"{path}/{i}", tensors, levels) for i, v in enumerate(value)
    ]
    return {"items": items}
  return {"value": value}


def _restore(tree: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Any:
  """The inverse of `_describe`."""
  if "array" in tree:
    array = tensors[tree["array"]]
    if tree["array"] + _SCALE in tensors:
      array = array * tensors[tree["array"] + _SCALE]
    return named(array, *tree["axes"])
  if "about" in tree:
    return _json_to_about(tree["about"])
  if "class" in tree:
    fields = {k: _restore(v, tensors) for k, v in tree["fields"].items()}
    return _CLASSES[tree["class"]](**fields)
  if "items" in tree:
    return tuple(_restore(item, tensors) for item in tree["items"])
  return tree["value"]


def _about_to_json(about: About) -> dict[str, Any]:
  row = {f.name: getattr(about, f.name) for f in dataclasses.fields(about)}
  for end in ("sites_in", "sites_out"):
    row[end] = [[site.name, site.layer] for site in row[end]]
  return row


def _json_to_about(row: Mapping[str, Any]) -> About:
  ends = {
    end: tuple(Site(name, layer) for name, layer in row[end])
    for end in ("sites_in", "sites_out")
  }
  return About(**{**row, **ends, "prefixes": tuple(row["prefixes"])})


def is_own(folder: str | os.PathLike) -> bool:
  """Whether a folder was written by `dictionary_to_folder`."""
  return (pathlib.Path(folder) / FILE).is_file()


def stored_bytes(dictionary: Any) -> int:
  """Bytes of a dictionary's arrays, wherever they are."""
  return sum(leaf.nbytes for leaf in jax.tree.leaves(dictionary))
