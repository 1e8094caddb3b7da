"""A configuration and a row source -> trained dictionaries.

    trained = train(config, source, "runs/first")
    trained.dictionaries["resid_post_9_l0_32"]

The folder holds checkpoints, `metrics.jsonl` and, at the end, a folder for each
dictionary in the library's own format. Called again with the same arguments it
goes on where it was cut off, to the same bits (on the same machine).
"""

from collections.abc import Mapping
import dataclasses
import functools
import logging
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp

from gemma_scope.activations.rows import Rows, RowSource
from gemma_scope.dictionaries.own_format import dictionary_to_folder, is_own
from gemma_scope.dictionaries.protocol import Dictionary
from gemma_scope.errors import ConfigError
from gemma_scope.manifest import make_manifest
from gemma_scope.sites import Site
from gemma_scope.training.checkpoint import Checkpoints
from gemma_scope.training.config import TrainConfig
from gemma_scope.training.finishing import finish
from gemma_scope.training.metrics import Recorder, Watch, check
from gemma_scope.training.placement import place
from gemma_scope.training.scaling import SiteScale, measure
from gemma_scope.training.state import TrainState, begin
from gemma_scope.training.step import make_step
from gemma_scope.weights import folders

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Trained:
  """What a run made.

  Attributes:
    dictionaries: By the label of each member.
    state: At the end; `finish(config, state)` gave the dictionaries.
    folder: Where they were written, or None.
  """

  dictionaries: Mapping[str, Dictionary]
  state: TrainState
  folder: pathlib.Path | None


def train(
  config: TrainConfig,
  source: RowSource,
  folder: str | os.PathLike | None = None,
  *,
  watch: Watch | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> Trained:
  """Trains every dictionary of a configuration side by side.

  Args:
    config: The run.
    source: Rows of every site of the run; newly made, even to go on.
    folder: For checkpoints, metrics and dictionaries; None keeps nothing.
    watch: Is given the numbers of every `log_every`th step.
    mesh: With an axis `model`, over which latents are sharded, and perhaps
      `data`, over which rows are.

  Raises:
    ConfigError: The source lacks a site, or ends too early.
    CheckpointError: The folder holds a run of another configuration.
    DivergedError: A number became infinite or NaN. The newest checkpoint is
      from before that.
  """
  _check_sites(config, source)
  root = None if folder is None else pathlib.Path(folder)
  checkpoints = root and Checkpoints(root / "checkpoints", config)
  recorder = Recorder(config, root, source.batch_rows, watch)
  try:
    state, widths = _run(config, source, checkpoints, recorder, mesh)
    made = finish(config, state)
    if root is not None:
      _write(config, made, root)
    # Last, as it may hold a shuffle buffer of many gigabytes.
    if checkpoints and checkpoints.latest() != config.steps:
      checkpoints.save(state, source.state(), widths)
  finally:
    if checkpoints:
      checkpoints.close()
  return Trained(made, state, root)


def _run(
  config: TrainConfig,
  source: RowSource,
  checkpoints: Checkpoints | None,
  recorder: Recorder,
  mesh: jax.sharding.Mesh | None,
) -> tuple[TrainState, dict[Site, int]]:
  """The state at the end, checked but not saved, and the sites' widths."""
  start, state, widths = _start(config, source, checkpoints, mesh)
  recorder.begin(start)
  step = make_step(config, widths)
  for done in range(start + 1, config.steps + 1):
    state, metrics = step(state, _next(source, done, config))
    last = done == config.steps
    if done % config.log_every == 0 or last:
      recorder.add(done, metrics)
    if checkpoints and done % config.checkpoint_every == 0 and not last:
      check(config, jax.device_get(metrics))
      checkpoints.save(state, source.state(), widths)
  recorder.close()  # checks the last step
  return state, widths


def _next(source: RowSource, step: int, config: TrainConfig) -> Rows:
  try:
    return next(source)
  except StopIteration:
    raise ConfigError(
      "The rows ended before the run did.",
      received=f"{step - 1} batches for {config.steps} steps",
      instead="more text, PackingOptions(epochs=None), or fewer steps in "
      "another folder",
    ) from None


def _start(
  config: TrainConfig,
  source: RowSource,
  checkpoints: Checkpoints | None,
  mesh: jax.sharding.Mesh | None,
) -> tuple[int, TrainState, dict[Site, int]]:
  """Steps done, state and widths: from a checkpoint, or from the beginning."""
  if checkpoints and checkpoints.latest() is not None:
    restored = checkpoints.restore(functools.partial(_shapes, config, mesh))
    source.restore(restored.source)
    _LOG.info("going on after step %d", restored.step)
    return restored.step, restored.state, restored.widths
  scales = measure(source, config)
  widths = {site: s.centre.shape[0] for site, s in scales.items()}
  return 0, place(begin(config, scales), mesh), widths


def _shapes(
  config: TrainConfig,
  mesh: jax.sharding.Mesh | None,
  widths: Mapping[Site, int],
) -> Any:
  """The state's shapes and placement, without its values."""
  scales = {
    s: SiteScale(jnp.float32(1), jnp.zeros((w,))) for s, w in widths.items()
  }
  shapes = jax.eval_shape(lambda: begin(config, scales))
  return place(shapes, mesh)


def _check_sites(config: TrainConfig, source: RowSource) -> None:
  missing = [str(s) for s in config.sites if s not in source.sites]
  if missing:
    raise ConfigError(
      "The row source lacks sites that are to be trained on.",
      received=f"sites {', '.join(map(str, source.sites))}",
      instead=f"a source that has {', '.join(missing)} too",
    )


def _write(
  config: TrainConfig, made: Mapping[str, Dictionary], root: pathlib.Path
) -> None:
  """A folder for each dictionary, and the manifest of the run."""
  for label, dictionary in made.items():
    if not is_own(root / label):
      dictionary_to_folder(dictionary, root / label)
  manifest = make_manifest({"train": config}, model=config.model)
  with folders.new_file(root / "manifest.json") as file:
    file.write(manifest.to_json().encode() + b"\n")
