"""Checkpoints of a run: the state and the row source, whole or not at all.

    folder/1000/state      arrays of `TrainState`      (Orbax)
    folder/1000/rows       arrays of the row source
    folder/1000/about      its numbers and strings, widths, configuration

Orbax writes under a temporary name and renames, in the background; the newest
`keep` stay. A run that was cut off anywhere goes on from the newest with the
very bits it would have had: `restore` gives back all that the next step
depends on.
"""

from collections.abc import Mapping
import dataclasses
import os
import pathlib
from typing import Any

from etils import epath
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from gemma_scope.errors import CheckpointError
from gemma_scope.manifest import hash_content
from gemma_scope.sites import Site
from gemma_scope.training.config import TrainConfig
from gemma_scope.training.state import TrainState

_ARRAY = "array "
# What may differ between the run that was cut off and the one that goes on.
_FREE = ("checkpoint_every", "keep", "log_every")


@dataclasses.dataclass(frozen=True)
class Restored:
  """What a checkpoint held.

  Attributes:
    step: Steps done.
    state: The state.
    source: What `RowSource.restore` takes.
    widths: Numbers of a vector at each site.
  """

  step: int
  state: TrainState
  source: dict[str, Any]
  widths: dict[Site, int]


class Checkpoints:
  """The checkpoints of one run in one folder."""

  def __init__(self, folder: str | os.PathLike, config: TrainConfig):
    """Opens the folder; it is made if it is not there.

    Args:
      folder: Of this run's checkpoints alone.
      config: The run.
    """
    self._folder = pathlib.Path(os.path.abspath(folder))
    self._config = config
    options = ocp.CheckpointManagerOptions(
      max_to_keep=config.keep, create=True, enable_async_checkpointing=True
    )
    self._manager = ocp.CheckpointManager(self._folder, options=options)

  def latest(self) -> int | None:
    """Steps done at the newest checkpoint, or None."""
    return self._manager.latest_step()

  def save(
    self,
    state: TrainState,
    source: Mapping[str, Any],
    widths: Mapping[Site, int],
  ) -> None:
    """Writes a checkpoint in the background.

    Args:
      state: The state; a copy of it is taken.
      source: `RowSource.state()`.
      widths: Numbers of a vector at each site.
    """
    arrays: dict[str, Any] = {}
    about = {
      "source": _without_arrays(source, arrays),
      "widths": [[s.name, s.layer, w] for s, w in widths.items()],
      "config": fingerprint(self._config),
    }
    arrays["none"] = np.zeros((), np.int8)  # Orbax writes no empty trees
    self._manager.save(
      int(state.step),
      args=ocp.args.Composite(
        state=ocp.args.StandardSave(jax.tree.map(jnp.copy, state)),
        rows=ocp.args.PyTreeSave(arrays),
        about=ocp.args.JsonSave(about),
      ),
    )

  def restore(self, template: Any) -> Restored:
    """Reads the newest checkpoint.

    Args:
      template: (widths) -> the state's shapes, dtypes and placement, as
        `jax.ShapeDtypeStruct`.

    Raises:
      CheckpointError: It is of another configuration.
    """
    step = self.latest()
    assert step is not None
    about = self._manager.restore(
      step, args=ocp.args.Composite(about=ocp.args.JsonRestore())
    )["about"]
    self._check(about["config"], step)
    widths = {Site(n, layer): w for n, layer, w in about["widths"]}
    found = self._manager.restore(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardRestore(template(widths)),
        rows=ocp.args.PyTreeRestore(restore_args=self._as_numpy(step)),
      ),
    )
    source = _with_arrays(about["source"], found["rows"])
    return Restored(step, found["state"], source, widths)

  def close(self) -> None:
    """Waits until everything is written."""
    self._manager.wait_until_finished()
    self._manager.close()

  def _as_numpy(self, step: int) -> dict[str, ocp.RestoreArgs]:
    folder = epath.Path(self._folder) / str(step) / "rows"
    metadata = ocp.PyTreeCheckpointHandler().metadata(folder)
    return {
      name: ocp.RestoreArgs(restore_type=np.ndarray) for name in metadata.tree
    }

  def _check(self, found: str, step: int) -> None:
    if found != fingerprint(self._config):
      raise CheckpointError(
        "The run in this folder was of another configuration.",
        received=f"{self._folder}, at step {step}",
        instead="the configuration it was begun with, or another folder",
      )


def fingerprint(config: TrainConfig) -> str:
  """A hash of what shapes the result of a run."""
  fields = {
    f.name: getattr(config, f.name)
    for f in dataclasses.fields(config)
    if f.name not in _FREE
  }
  return hash_content(fields)


def _without_arrays(tree: Any, arrays: dict[str, Any]) -> Any:
  """The tree as JSON; its arrays go into `arrays`."""
  if isinstance(tree, Mapping):
    return {str(k): _without_arrays(v, arrays) for k, v in tree.items()}
  if isinstance(tree, list | tuple):
    return [_without_arrays(v, arrays) for v in tree]
  if isinstance(tree, np.ndarray | jax.Array):
    name = f"{_ARRAY}{len(arrays)}"
    arrays[name] = tree
    return name
  return tree.item() if isinstance(tree, np.generic) else tree


def _with_arrays(tree: Any, arrays: Mapping[str, Any]) -> Any:
  """The inverse of `_without_arrays`; tuples come back as lists."""
  if isinstance(tree, Mapping):
    return {k: _with_arrays(v, arrays) for k, v in tree.items()}
  if isinstance(tree, list):
    return [_with_arrays(v, arrays) for v in tree]
  return arrays[tree] if isinstance(tree, str) and tree in arrays else tree
