"""Where the state of a run lies: latents over the axis `model` of a mesh.

Encoders are cut along their columns, decoders along their rows, all that has
one number a latent alike; XLA then adds up reconstructions over the mesh, and
TopK counts over it. What has no latents is on every device.
"""

from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

MODEL = "model"
# Name of an array -> which of its axes, after `members`, runs over latents.
_LATENT_AXIS = {
  "w_enc": 1,
  "b_enc": 0,
  "w_dec": 0,
  "threshold": 0,
  "log_gain": 0,
  "b_magnitude": 0,
}


def place(state: Any, mesh: jax.sharding.Mesh | None) -> Any:
  """Puts a state, or its shapes, on the devices it is to be on.

  Args:
    state: A `TrainState` of arrays or of `jax.ShapeDtypeStruct`.
    mesh: With an axis `model`; None for the default device.
  """
  if mesh is not None:  # XLA, not the program, finds how products are shared
    mesh = jax.sharding.Mesh(mesh.devices, mesh.axis_names)

  def put(path: Any, leaf: Any) -> Any:
    if mesh is None:
      where = SingleDeviceSharding(jax.devices()[0])
    else:
      where = NamedSharding(mesh, _spec(path, len(leaf.shape)))
    if isinstance(leaf, jax.ShapeDtypeStruct):
      return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)
    return jax.device_put(leaf, where)

  return jax.tree_util.tree_map_with_path(put, state)


def _spec(path: tuple[Any, ...], ndim: int) -> PartitionSpec:
  keys = [getattr(k, "key", getattr(k, "name", None)) for k in path]
  if "since" in keys:
    return PartitionSpec(None, MODEL)
  in_parts = "parts" in keys
  name = keys[-1]
  if not in_parts or name not in _LATENT_AXIS:
    return PartitionSpec()
  spec: list[str | None] = [None] * ndim
  spec[1 + _LATENT_AXIS[name]] = MODEL
  return PartitionSpec(*spec)
