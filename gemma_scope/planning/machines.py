"""Machines to plan for: chips, their memory and speed, and a mesh of them.

    cpu  cpu:8  gpu  v4:2x2x1  v5e:4x4  v5p:2x2x1  v6e:8x8

TPU topologies need no TPU: libtpu compiles for them on any computer. Peak
rates are those that Google Cloud publishes for one chip: matrix products in
bfloat16, memory bandwidth, and links between chips, all directions together.
Of a CPU or GPU nothing is assumed but the memory it reports.
"""

from collections.abc import Mapping
import dataclasses
import functools
import importlib.util
import math
import os
import re
from typing import Any

import jax
import numpy as np

from gemma_scope.errors import ConfigError
from gemma_scope.model.sharding import DATA, MODEL


@dataclasses.dataclass(frozen=True)
class Chip:
  """One kind of chip.

  Attributes:
    memory: Bytes a program may use.
    flops: Matrix products in bfloat16, FLOP/s; None where not known.
    bandwidth: Of its memory, bytes/s.
    links: To other chips, bytes/s.
  """

  memory: float
  flops: float | None = None
  bandwidth: float | None = None
  links: float | None = None


_GIB = 2.0**30
TPU_CHIPS: Mapping[str, Chip] = {
  "v4": Chip(30.75 * _GIB, 275e12, 1228e9, 300e9),
  "v5e": Chip(15.75 * _GIB, 197e12, 819e9, 200e9),
  "v5p": Chip(95.74 * _GIB, 459e12, 2765e9, 600e9),
  "v6e": Chip(31.25 * _GIB, 918e12, 1640e9, 448e9),
}

# libtpu asks a metadata server for what it finds here. Several processes may
# compile at once: none of them takes hold of a TPU.
_WITHOUT_TPU = {
  "TPU_SKIP_MDS_QUERY": "1",
  "TPU_ACCELERATOR_TYPE": "v5litepod-8",
  "TPU_WORKER_HOSTNAMES": "localhost",
  "TPU_WORKER_ID": "0",
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


@dataclasses.dataclass(frozen=True)
class Machine:
  """Chips of one kind, as a mesh.

  Attributes:
    name: As typed, such as "v5e:4x4".
    chip: What one of them is.
    mesh: The mesh (data, model) of all of them.
  """

  name: str
  chip: Chip
  mesh: jax.sharding.Mesh

  @property
  def count(self) -> int:
    """How many chips."""
    return self.mesh.size


def find_machine(name: str, mesh: tuple[int, int] | None = None) -> Machine:
  """The machine that a name means.

  Args:
    name: "cpu" or "cpu:8" (devices of this computer), "gpu", or a TPU topology
      such as "v5e:4x4".
    mesh: Chips along (data, model); by default `model` gets 8 of a pod, and
      all of a smaller machine.

  Raises:
    ConfigError: If there is no such machine, or the mesh does not fit it.
  """
  kind, _, shape = name.partition(":")
  if kind in TPU_CHIPS and re.fullmatch(r"\d+(x\d+){1,2}", shape):
    devices, chip = _tpu(kind, shape), TPU_CHIPS[kind]
  elif kind in ("cpu", "gpu") and re.fullmatch(r"\d*", shape):
    devices = _local(name, kind, int(shape or 1))
    chip = _local_chip(devices[0], len(devices))
  else:
    raise ConfigError(
      "There is no such machine to plan for.",
      received=repr(name),
      instead=f"cpu, cpu:8, gpu, or one of {', '.join(TPU_CHIPS)} with a "
      "topology, such as v5e:4x4 or v5p:2x2x1",
    )
  return Machine(name, chip, _mesh(devices, mesh))


def _mesh(devices: list[Any], shape: tuple[int, int] | None) -> Any:
  count = len(devices)
  if shape is None:
    model = math.gcd(count, 8)
    shape = (count // model, model)
  if math.prod(shape) != count:
    raise ConfigError(
      "The mesh does not fit the machine.",
      received=f"{shape[0]}x{shape[1]} for {count} chips",
      instead=f"data x model with a product of {count}, such as {count}x1",
    )
  return jax.sharding.Mesh(np.array(devices).reshape(shape), (DATA, MODEL))


@functools.cache
def _tpu(kind: str, shape: str) -> list[Any]:
  if importlib.util.find_spec("libtpu") is None:
    raise ConfigError(
      "Planning for a TPU needs the TPU compiler; no TPU is needed.",
      received=f"{kind}:{shape}, and no package libtpu",
      instead='pip install libtpu, or pip install "gemma-scope[tpu]"',
    )
  from jax.experimental import topologies

  for key, value in _WITHOUT_TPU.items():
    os.environ.setdefault(key, value)
  try:
    found = topologies.get_topology_desc(
      platform="tpu", topology_name=f"{kind}:{shape}"
    )
  except (RuntimeError, ValueError) as error:
    raise ConfigError(
      "The TPU compiler does not know this topology.",
      received=f"{kind}:{shape}: {str(error).splitlines()[0]:.200}",
      instead="one that is offered, such as v5e:2x2, v5e:16x16 or v5p:4x4x4",
    ) from error
  return list(found.devices)


def _local(name: str, kind: str, count: int) -> list[Any]:
  try:
    devices = jax.devices(kind)
  except RuntimeError:
    devices = []
  if len(devices) >= count:
    return devices[:count]
  raise ConfigError(
    "This computer has fewer such devices.",
    received=f"{name}, and {len(devices)} there",
    instead="a machine it has, or a TPU topology such as v5e:4x4"
    + (f"; jax_num_cpu_devices={count} makes CPU ones" * (kind == "cpu")),
  )


def _local_chip(device: Any, count: int) -> Chip:
  """What a device of this computer says of itself."""
  stats = device.memory_stats() or {}
  if "bytes_limit" in stats:
    return Chip(stats["bytes_limit"])
  whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
  return Chip(whole / count)
