"""What a run tells while it goes on: numbers of every member, now and then.

Metrics stay on the device until the next report is due, so that fetching them
never makes the device wait. Each report goes to `metrics.jsonl`, one line a
member, to TensorBoard if `tensorboardX` is installed, and to whoever watches.
"""

from collections.abc import Callable, Mapping
import dataclasses
import importlib
import importlib.util
import json
import pathlib
import time
from typing import Any

import jax
import numpy as np

from gemma_scope.errors import GemmaScopeError
from gemma_scope.training.config import TrainConfig
from gemma_scope.training.losses import term_names
from gemma_scope.training.step import Metrics

FILE = "metrics.jsonl"


@dataclasses.dataclass(frozen=True)
class Report:
  """The numbers of one step.

  Attributes:
    step: Steps done.
    steps: Of the whole run.
    rows_per_second: Rows of the source since the last report.
    members: Label -> name of a number -> its value.
  """

  step: int
  steps: int
  rows_per_second: float
  members: Mapping[str, Mapping[str, float]]


Watch = Callable[[Report], None]


class DivergedError(GemmaScopeError):
  """A number of the training is not finite any more."""


class Recorder:
  """Fetches, checks and passes on metrics."""

  def __init__(
    self,
    config: TrainConfig,
    folder: pathlib.Path | None,
    batch_rows: int,
    watch: Watch | None = None,
  ):
    """Opens nothing yet.

    Args:
      config: The run.
      folder: For `metrics.jsonl`; None for no file.
      batch_rows: Rows in a batch.
      watch: Is given every report.
    """
    self._config = config
    self._folder = folder
    self._batch_rows = batch_rows
    self._watch = watch
    self._waiting: tuple[int, Metrics] | None = None
    self._last: tuple[int, float] = (0, time.monotonic())
    self._board: Any = None

  def begin(self, step: int) -> None:
    """Forgets lines after `step`, which the run is about to do again."""
    self._last = (step, time.monotonic())
    if self._folder is None:
      return
    self._folder.mkdir(parents=True, exist_ok=True)
    path = self._folder / FILE
    if path.exists():
      lines = path.read_text().splitlines(keepends=True)
      path.write_text("".join(line for line in lines if _until(line, step)))
    if importlib.util.find_spec("tensorboardX"):
      board = importlib.import_module("tensorboardX")
      self._board = board.SummaryWriter(str(self._folder / "tensorboard"))

  def add(self, step: int, metrics: Metrics) -> None:
    """Takes the metrics of a step and passes on those before.

    Raises:
      DivergedError: One of those before was not finite.
    """
    for leaf in jax.tree.leaves(metrics):
      leaf.copy_to_host_async()
    self.flush()
    self._waiting = (step, metrics)

  def flush(self) -> None:
    """Passes on what waits.

    Raises:
      DivergedError: A number is not finite.
    """
    if self._waiting is None:
      return
    step, metrics = self._waiting
    self._waiting = None
    fetched = jax.tree.map(np.asarray, metrics)
    check(self._config, fetched)
    before, began = self._last
    at = time.monotonic()  # when the device had come so far, or later
    rate = (step - before) * self._batch_rows / max(at - began, 1e-9)
    self._last = (step, at)
    members = by_member(self._config, fetched)
    self._write(Report(step, self._config.steps, rate, members))

  def close(self) -> None:
    """Passes on what waits and closes TensorBoard's file."""
    self.flush()
    if self._board is not None:
      self._board.close()

  def _write(self, report: Report) -> None:
    if self._folder is not None:
      with open(self._folder / FILE, "a", encoding="utf-8") as file:
        file.writelines(_lines(report))
    if self._board is not None:
      for label, numbers in report.members.items():
        for name, value in numbers.items():
          self._board.add_scalar(f"{label}/{name}", value, report.step)
    if self._watch is not None:
      self._watch(report)


def check(config: TrainConfig, metrics: Any) -> None:
  """Looks for the first number that was not finite.

  Args:
    config: The run.
    metrics: As `step` gives them, fetched.

  Raises:
    DivergedError: With term, member and step.
  """
  for group, found in zip(config.groups, metrics):
    names = (*term_names(group), "gradient")
    for i, member in enumerate(group.members):
      if found["alarm_step"][i] < 0:
        continue
      bad = [n for n, b in zip(names, found["alarm_terms"][i]) if b]
      raise DivergedError(
        f"{member.label}: {', '.join(bad)} is not finite.",
        received=f"step {found['alarm_step'][i]}, learning rate "
        f"{member.learning_rate:g}",
        instead="the last checkpoint is from before; a lower learning rate, "
        "or a longer warm-up, in another folder",
      )


def by_member(config: TrainConfig, metrics: Any) -> dict[str, dict[str, float]]:
  """Label -> name -> number, of metrics that were fetched."""
  found = {}
  for group, numbers in zip(config.groups, metrics):
    shown = {n: v for n, v in numbers.items() if not n.startswith("alarm")}
    for i, member in enumerate(group.members):
      own = {name: float(value[i]) for name, value in shown.items()}
      found[member.label] = own | {"explained": 1 - own["fvu"]}
  return found


def _lines(report: Report) -> list[str]:
  shared = {"step": report.step, "rows_per_second": report.rows_per_second}
  return [
    json.dumps({**shared, "member": label, **numbers}) + "\n"
    for label, numbers in report.members.items()
  ]


def _until(line: str, step: int) -> bool:
  """Whether a line is whole and of a step up to this one."""
  try:
    return json.loads(line)["step"] <= step
  except (ValueError, KeyError):
    return False
