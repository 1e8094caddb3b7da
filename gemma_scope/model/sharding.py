"""Which mesh axis shards which named axis, in one table.

The mesh has the axes `data` and `model`. A named axis whose size the mesh axis
does not divide stays whole, so that every size of Gemma 3 works on every mesh.
"""

from collections.abc import Mapping

import jax
from jax.sharding import NamedSharding, PartitionSpec
from penzai import pz

from gemma_scope import axes

DATA = "data"
MODEL = "model"

PARAMETER_RULES: Mapping[str, str] = {
  axes.VOCABULARY: MODEL,
  axes.HEADS: MODEL,
  axes.KV_HEADS: MODEL,
  axes.NEURONS: MODEL,
  axes.LATENTS: MODEL,
  axes.EMBEDDING: DATA,
}

# Rows go over `data`; where there are fewer rows than parts, positions do.
ACTIVATION_RULES: Mapping[str, str] = {
  axes.BATCH: DATA,
  axes.SEQ: DATA,
  axes.HEADS: MODEL,
  axes.KV_HEADS: MODEL,
  axes.NEURONS: MODEL,
  axes.VOCABULARY: MODEL,
}


def parameter_sharding(
  mesh: jax.sharding.Mesh, names: tuple[str, ...], shape: tuple[int, ...]
) -> NamedSharding:
  """The sharding of a parameter with these axes and sizes."""
  return _sharding(mesh, PARAMETER_RULES, names, shape)


def activation_sharding(
  mesh: jax.sharding.Mesh, names: tuple[str, ...], shape: tuple[int, ...]
) -> NamedSharding:
  """The sharding of an activation with these axes and sizes."""
  return _sharding(mesh, ACTIVATION_RULES, names, shape)


def sharded(
  value: pz.nx.NamedArray, mesh: jax.sharding.Mesh
) -> pz.nx.NamedArray:
  """An activation, laid out over a mesh by `ACTIVATION_RULES`."""
  names = tuple(map(str, value.named_axes))
  data = value.unwrap(*names)
  where = activation_sharding(mesh, names, data.shape)
  return pz.nx.wrap(jax.lax.with_sharding_constraint(data, where), *names)


def _sharding(
  mesh: jax.sharding.Mesh,
  rules: Mapping[str, str],
  names: tuple[str, ...],
  shape: tuple[int, ...],
) -> NamedSharding:
  taken: set[str] = set()
  spec: list[str | None] = []
  for name, size in zip(names, shape):
    axis = rules.get(name)
    divides = axis in mesh.shape and size % mesh.shape[axis] == 0
    use = axis if axis is not None and divides and axis not in taken else None
    taken |= {use} if use else set()
    spec.append(use)
  return NamedSharding(mesh, PartitionSpec(*spec))
