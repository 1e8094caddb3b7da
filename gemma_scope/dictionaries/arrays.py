"""The named arrays of a dictionary: in memory, or still in their file.

A reader gives arrays that are mapped from the file (NumPy); they are read when
they are used, and only as far as they are. `place` brings them to a device, or
into the shards of a mesh.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from penzai import pz

from gemma_scope import axes
from gemma_scope.errors import ConfigError
from gemma_scope.model.sharding import parameter_sharding

DictionaryT = TypeVar("DictionaryT")

DTYPES = ("float32", "bfloat16", "float16")


def named(array: Any, *names: str) -> pz.nx.NamedArray:
  """Names the axes of an array and leaves it where it is.

  Args:
    array: NumPy (mapped from a file, say) or JAX.
    *names: One for each axis.
  """
  sizes: Any = OrderedDict(zip(names, array.shape, strict=True))
  return pz.nx.NamedArray(named_axes=sizes, data_array=array)


def cut(
  array: pz.nx.NamedArray, axis: str, index: int | slice
) -> pz.nx.NamedArray:
  """Part of an array along one axis; an index drops the axis.

  Of a mapped array nothing is read.
  """
  names = names_of(array)
  at = tuple(index if name == axis else slice(None) for name in names)
  left = [n for n in names if n != axis or isinstance(index, slice)]
  return named(array.data_array[at], *left)


def map_arrays(
  function: Callable[[pz.nx.NamedArray], pz.nx.NamedArray],
  dictionary: DictionaryT,
) -> DictionaryT:
  """Applies a function to every named array of a dictionary."""

  def change(leaf: Any) -> Any:
    return function(leaf) if isinstance(leaf, pz.nx.NamedArray) else leaf

  return jax.tree.map(change, dictionary, is_leaf=pz.nx.is_namedarray)


def names_of(array: pz.nx.NamedArray) -> tuple[str, ...]:
  """The names of its axes, in the order in which they are stored."""
  return tuple(str(name) for name in array.named_axes)


def is_mapped(dictionary: Any) -> bool:
  """Whether any of its arrays are still in their file."""
  leaves = jax.tree.leaves(dictionary)
  return any(isinstance(leaf, np.ndarray) for leaf in leaves)


def place(
  dictionary: DictionaryT,
  *,
  dtype: Any = "float32",
  mesh: jax.sharding.Mesh | None = None,
) -> DictionaryT:
  """Brings a dictionary's arrays to a device, or into shards.

  Args:
    dictionary: With arrays anywhere.
    dtype: What they are kept in; encoding and decoding are float32 in any case.
    mesh: With an axis `model`: latents are spread over it, and each shard is
      read from the file by itself. None puts all on the default device.

  Raises:
    ConfigError: The dtype is none that weights can have.
  """
  kind = checked_dtype(dtype)

  def put(array: pz.nx.NamedArray) -> pz.nx.NamedArray:
    names, data = names_of(array), array.data_array
    if mesh is None:
      return named(jnp.asarray(data, kind), *names)
    sharding = parameter_sharding(mesh, names, data.shape)
    if isinstance(data, np.ndarray):
      placed = jax.make_array_from_callback(
        data.shape, sharding, lambda at: np.asarray(data[at], kind)
      )
    else:
      placed = jax.device_put(data.astype(kind), sharding)
    return named(placed, *names)

  return map_arrays(put, dictionary)


def first_latents(dictionary: DictionaryT, size: int) -> DictionaryT:
  """The dictionary of the latents [0, size): its arrays cut along `latents`."""

  def shorten(array: pz.nx.NamedArray) -> pz.nx.NamedArray:
    if axes.LATENTS not in array.named_axes:
      return array
    return cut(array, axes.LATENTS, slice(size))

  return map_arrays(shorten, dictionary)


def checked_dtype(dtype: Any) -> np.dtype:
  """One of `DTYPES` as a dtype; refuses the others.

  Raises:
    ConfigError: Another dtype.
  """
  try:
    kind = jnp.dtype(dtype)
  except TypeError:
    kind = None
  if kind is None or kind.name not in DTYPES:
    raise ConfigError(
      "Dictionaries are kept in a floating-point dtype.",
      received=f"dtype={dtype!r}",
      instead=" or ".join(f'dtype="{name}"' for name in DTYPES),
    )
  return kind
