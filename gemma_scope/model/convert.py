"""Checkpoints to models and models back to canonical tensors.

Loading reads one tensor at a time, casts it, and puts it where it belongs: on
the default device, or with a mesh straight into its shards.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from penzai import pz

from gemma_scope.model import layout
from gemma_scope.model.block import block_arrays
from gemma_scope.model.build import ArrayRequest, build_gemma, request_shape
from gemma_scope.model.config import GemmaConfig
from gemma_scope.model.gemma import Gemma
from gemma_scope.model.sharding import parameter_sharding
from gemma_scope.model.site_layer import without_scopes
from gemma_scope.weights.checkpoint import LazyTensor

Progress = Callable[[str, float], None]


def tensors_to_gemma(
  tensors: Mapping[str, LazyTensor | np.ndarray],
  config: GemmaConfig,
  dtype: jnp.dtype | type = jnp.float32,
  *,
  mesh: jax.sharding.Mesh | None = None,
  scan: bool = True,
  progress: Progress | None = None,
) -> Gemma:
  """Builds a model from canonical tensors.

  Args:
    tensors: Canonical name -> tensor, read or not.
    config: The shape that the tensors have.
    dtype: Dtype of the model's arrays.
    mesh: Mesh with axes `data` and `model` to shard over, or None.
    scan: Whether to stack whole periods (see `build_gemma`).
    progress: Called with a label and the fraction done.
  """
  shapes = {name: tuple(t.shape) for name, t in tensors.items()}
  done = 0

  def answer(request: ArrayRequest) -> pz.nx.NamedArray:
    nonlocal done
    array = _load(tensors, request, shapes, dtype, mesh)
    done += len(request.names)
    if progress is not None:
      progress("Loading weights", done / len(shapes))
    return pz.nx.wrap(array, *request.axes)

  return build_gemma(config, answer, scan=scan, mesh=mesh)


def gemma_to_tensors(model: Gemma) -> dict[str, np.ndarray]:
  """The canonical tensors of a model, in its dtype, on the host.

  Inverse of `tensors_to_gemma` up to the cast: layers and edits that surgery
  added are not weights of Gemma 3 and are left out.
  """
  outer = {
    "embedder/input_embedding": model.table,
    "final_norm/scale": without_scopes(model.final_norm).scale,
  }
  tensors = {
    name: _canonical(array, layout.OUTER_LAYOUT[name])
    for name, array in outer.items()
  }
  for i in range(model.stack.num_layers):
    for name, array in block_arrays(model.stack.block(i)).items():
      value = _canonical(array, layout.LAYER_LAYOUT[name])
      tensors[f"layer_{i}/{name}"] = value
  return tensors


def _load(
  tensors: Mapping[str, LazyTensor | np.ndarray],
  request: ArrayRequest,
  shapes: dict[str, tuple[int, ...]],
  dtype: jnp.dtype | type,
  mesh: jax.sharding.Mesh | None,
) -> jax.Array:
  """Reads, turns, casts and places the array that answers `request`."""
  order = request.layout.order

  def read(name: str) -> np.ndarray:
    tensor = tensors[name]
    value = tensor.read() if isinstance(tensor, LazyTensor) else tensor
    return np.transpose(value, order)

  values = [read(name) for name in request.names]

  def shard(index: Any) -> np.ndarray:
    if not request.stacked:
      return _cast(values[0][index], dtype)
    return np.stack([_cast(v[index[1:]], dtype) for v in values[index[0]]])

  shape = request_shape(request, shapes)
  if mesh is None:
    return jnp.asarray(shard((slice(None),) * len(shape)))
  sharding = parameter_sharding(mesh, request.axes, shape)
  return jax.make_array_from_callback(shape, sharding, shard)


def _cast(value: np.ndarray, dtype: jnp.dtype | type) -> np.ndarray:
  """A contiguous copy in `dtype`, or the value itself if it is one already."""
  return np.ascontiguousarray(value, dtype=np.dtype(dtype))


def _canonical(array: pz.nx.NamedArray, how: layout.ArrayLayout) -> np.ndarray:
  value = np.asarray(array.unwrap(*how.axes))
  return np.transpose(value, how.inverse)
