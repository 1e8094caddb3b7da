"""What a run tells while it goes on."""

import json
import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest

from gemma_scope.training import metrics
from tests.training import runs

CONFIG = runs.run(
  runs.group(members=[runs.member(), runs.member(name="second")])
)


def numbers(fvu=0.25, alarm=-1):
  return (
    {
      "mse": jnp.asarray([1.0, 2.0]),
      "sparsity": jnp.asarray([0.1, 0.2]),
      "l0": jnp.asarray([3.0, 4.0]),
      "fvu": jnp.asarray([fvu, 0.5]),
      "alarm_step": jnp.asarray([-1, alarm]),
      "alarm_terms": jnp.asarray([[False] * 3, [False, True, True]]),
    },
  )


def recorder(folder=None, seen=None):
  watch = None if seen is None else seen.append
  made = metrics.Recorder(CONFIG, folder, 64, watch)
  made.begin(0)
  return made


def test_reports_come_one_behind_and_then_all():
  seen = []
  given = recorder(seen=seen)
  given.add(5, numbers())
  assert not seen
  given.add(10, numbers(0.125))
  assert [r.step for r in seen] == [5]
  given.close()
  assert [r.step for r in seen] == [5, 10]
  assert seen[1].members["sae"]["fvu"] == 0.125
  assert seen[1].members["sae"]["explained"] == 0.875
  assert seen[1].members["second"]["l0"] == 4
  assert seen[1].rows_per_second > 0
  assert seen[1].steps == CONFIG.steps


def test_lines_after_the_step_a_run_goes_on_from_are_dropped(tmp_path):
  first = recorder(tmp_path)
  for step in (5, 10, 15):
    first.add(step, numbers())
  first.close()
  path = tmp_path / metrics.FILE
  with open(path, "a") as file:
    file.write('{"step": 16, "mem')  # cut off while it was written
  again = metrics.Recorder(CONFIG, tmp_path, 64)
  again.begin(10)
  again.add(15, numbers())
  again.close()
  rows = [json.loads(line) for line in path.read_text().splitlines()]
  assert [r["step"] for r in rows] == [5, 5, 10, 10, 15, 15]
  assert {r["member"] for r in rows} == {"sae", "second"}
  assert "alarm_step" not in rows[0]


def test_a_bad_number_stops_and_says_which():
  given = recorder()
  given.add(5, numbers(alarm=3))
  with pytest.raises(metrics.DivergedError, match="second: sparsity, gradient"):
    given.add(10, numbers())


def test_tensorboard_if_it_is_there(tmp_path, monkeypatch):
  written = []

  class SummaryWriter:
    def __init__(self, folder):
      self.folder = folder

    def add_scalar(self, name, value, step):
      written.append((name, value, step))

    def close(self):
      written.append("closed")

  module = types.ModuleType("tensorboardX")
  module.SummaryWriter = SummaryWriter
  monkeypatch.setitem(sys.modules, "tensorboardX", module)
  monkeypatch.setattr(metrics.importlib.util, "find_spec", lambda name: name)
  given = recorder(tmp_path)
  given.add(5, numbers())
  given.close()
  assert ("sae/fvu", 0.25, 5) in written
  assert written[-1] == "closed"


def test_check_takes_what_was_fetched():
  metrics.check(CONFIG, [{k: np.asarray(v) for k, v in numbers()[0].items()}])
