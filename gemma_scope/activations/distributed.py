"""Several processes at one capture: who is who, and what they agree on.

A process is a host of a TPU pod, a task of a SLURM job, or one of a few on one
machine. Each reads its part of the text and writes its part of the store. Where
every process holds a whole model on devices of its own, they need nothing of
one another. Where one model lies over all of them (a mesh over `jax.devices()`)
they run in step, and stop together.
"""

from collections.abc import Sequence
import dataclasses

import jax
from jax.experimental import multihost_utils
import numpy as np

from gemma_scope.errors import ConfigError
from gemma_scope.model.sharding import DATA, MODEL


@dataclasses.dataclass(frozen=True)
class Host:
  """One of the processes.

  Attributes:
    index: Its number, from 0.
    count: How many there are.
  """

  index: int = 0
  count: int = 1

  def __post_init__(self):
    if not 0 <= self.index < self.count:
      raise ConfigError(
        "There is no such process.",
        received=f"number {self.index} of {self.count}",
        instead=f"a number from 0 to {self.count - 1}",
      )


def start(
  coordinator: str | None = None,
  *,
  count: int | None = None,
  index: int | None = None,
) -> Host:
  """Joins the processes of a job; to be called before JAX computes anything.

  On a Cloud TPU pod, under SLURM and under Open MPI all arguments are found.

  Args:
    coordinator: Address and port of process 0, "10.0.0.1:1234".
    count: How many processes there are.
    index: The number of this one.

  Raises:
    ConfigError: If they do not find one another.
  """
  try:
    jax.distributed.initialize(coordinator, count, index)
  except (ValueError, RuntimeError) as error:
    raise ConfigError(
      "The processes of the job did not find one another.",
      received=f"coordinator {coordinator}, process {index} of {count}: "
      f"{str(error).splitlines()[0]}",
      instead="address and port of process 0, how many there are and which "
      "this is; or none of the three on a TPU pod or under SLURM",
    ) from error
  return Host(jax.process_index(), jax.process_count())


def make_mesh(shape: tuple[int, int] | None) -> jax.sharding.Mesh | None:
  """The devices that one model lies on.

  Args:
    shape: Devices along `data` and `model`. As many as all processes have
      together put one model over all of them; fewer are of this process. None
      takes all of this process along `data`.

  Returns:
    A mesh; None for a single device.

  Raises:
    ConfigError: If there are not as many.
  """
  own, everywhere = jax.local_devices(), jax.devices()
  data, model = shape or (len(own), 1)
  if data * model == 1:
    return None
  devices = everywhere if data * model == len(everywhere) else own
  if data * model > len(devices):
    raise ConfigError(
      "There are not so many devices.",
      received=f"a mesh of {data} x {model}; {len(own)} devices here, "
      f"{len(everywhere)} in all",
      instead="a mesh of the devices here, or of all",
    )
  grid = np.array(devices[: data * model]).reshape(data, model)
  return jax.sharding.Mesh(grid, (DATA, MODEL))


def in_step(mesh: jax.sharding.Mesh | None) -> bool:
  """Whether the processes must run every batch together."""
  if mesh is None:
    return False
  return len({device.process_index for device in mesh.devices.flat}) > 1


def gather(numbers: Sequence[int]) -> np.ndarray:
  """The numbers of all processes, [processes, n]; all must call this."""
  own = np.asarray(numbers, np.int32)
  return np.asarray(multihost_utils.process_allgather(own)).reshape(
    -1, len(own)
  )


def wait_for_all(name: str) -> None:
  """Returns when every process is here."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)


def local_rows(array: jax.Array) -> np.ndarray:
  """The rows of an array that lie on devices of this process.

  Args:
    array: [rows, width]; over several processes only rows may be shared.

  Returns:
    [rows of this process, width], in order.

  Raises:
    ConfigError: If a part of these rows lies with another process.
  """
  if array.is_fully_addressable:
    return np.asarray(array)
  parts: dict[tuple[int, int], np.ndarray] = {}
  for shard in array.addressable_shards:
    row, column = (part.start or 0 for part in shard.index)
    parts.setdefault((row, column), np.asarray(shard.data))
  starts = sorted({row for row, _ in parts})
  rows = [
    np.concatenate([parts[key] for key in sorted(parts) if key[0] == row], 1)
    for row in starts
  ]
  if any(block.shape[1] != array.shape[1] for block in rows):
    raise ConfigError(
      "The rows of this site are cut in pieces that lie with other processes.",
      received=f"sharding {array.sharding}",
      instead="a mesh whose `model` axis stays within the devices of a process",
    )
  return np.concatenate(rows)
