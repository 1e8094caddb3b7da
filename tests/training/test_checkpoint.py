"""Checkpoints hold all that the next step depends on."""

import json
import os
import pathlib
import random
import subprocess
import sys

import jax
import numpy as np
import pytest

from gemma_scope.errors import CheckpointError
from gemma_scope.training.checkpoint import Checkpoints, fingerprint
from gemma_scope.training.scaling import measure
from gemma_scope.training.state import begin
from tests.training import killed, runs

ROOT = pathlib.Path(__file__).parents[2]


def files(folder):
  """Bytes of every dictionary of a run."""
  found = sorted(pathlib.Path(folder).glob("*/arrays.safetensors"))
  return {path.parent.name: path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  """A run that nothing disturbed."""
  folder = tmp_path_factory.mktemp("whole")
  killed.main(folder, 0, 0)
  return folder


def start(folder, step, seconds=0.0):
  command = [sys.executable, "-m", "tests.training.killed"]
  command += [str(folder), str(step), str(seconds)]
  environment = os.environ | {
    "PYTHONPATH": str(ROOT),
    "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
  }
  return subprocess.run(
    command, cwd=ROOT, env=environment, capture_output=True, check=False
  )


def test_a_killed_run_ends_with_the_same_bytes(whole, tmp_path):
  """Killed between checkpoints, then while one is written."""
  assert start(tmp_path, 10).returncode == -9
  assert start(tmp_path, 24, 0.002).returncode == -9
  killed.main(tmp_path, 0, 0)
  assert files(tmp_path) == files(whole)
  lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
  steps = [json.loads(line)["step"] for line in lines]
  assert steps == [s for s in range(1, 41) for _ in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_twenty_random_kills(whole, tmp_path, seed):
  draw = random.Random(seed)
  step, seconds = draw.randint(1, 38), draw.random() * 0.02
  assert start(tmp_path, step, seconds).returncode == -9
  killed.main(tmp_path, 0, 0)
  assert files(tmp_path) == files(whole)


def test_state_and_rows_come_back(tmp_path):
  config = runs.run(runs.group("clt", "batch_top_k"))
  state = begin(config, measure(runs.rows(), config))
  source = {
    "numbers": {"a": 3, "b": 0.5, "big": 1 << 100, "none": None},
    "texts": ["x", "array"],
    "arrays": [np.arange(5, dtype=np.int8), jax.numpy.ones((2, 3), "bfloat16")],
  }
  widths = dict.fromkeys(config.sites, runs.D)
  checkpoints = Checkpoints(tmp_path, config)
  checkpoints.save(state, source, widths)
  checkpoints.close()
  again = Checkpoints(tmp_path, config)
  found = again.restore(lambda widths: jax.eval_shape(lambda: state))
  again.close()
  assert (found.step, found.widths) == (0, widths)
  for a, b in zip(jax.tree.leaves(found.state), jax.tree.leaves(state)):
    np.testing.assert_array_equal(a, b)
  arrays = found.source.pop("arrays")
  assert found.source == {"numbers": source["numbers"], "texts": ["x", "array"]}
  for a, b in zip(arrays, source["arrays"]):
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a, b)


def test_only_the_newest_stay(tmp_path):
  config = runs.run(keep=2)
  state = begin(config, measure(runs.rows(), config))
  checkpoints = Checkpoints(tmp_path, config)
  assert checkpoints.latest() is None
  for step in (3, 5, 9):
    checkpoints.save(state._replace(step=np.int32(step)), {}, {})
  checkpoints.close()
  assert sorted(p.name for p in tmp_path.iterdir()) == ["5", "9"]
  assert Checkpoints(tmp_path, config).latest() == 9


def test_another_configuration_is_refused(tmp_path):
  config = runs.run()
  state = begin(config, measure(runs.rows(), config))
  checkpoints = Checkpoints(tmp_path, config)
  checkpoints.save(state, {}, {})
  checkpoints.close()
  other = Checkpoints(tmp_path, runs.replace(config, steps=21))
  with pytest.raises(CheckpointError, match="of another configuration"):
    other.restore(lambda widths: state)


def test_what_may_differ():
  config = runs.run()
  freely = runs.replace(config, log_every=1, keep=9, checkpoint_every=2)
  assert fingerprint(config) == fingerprint(freely)
  assert fingerprint(config) != fingerprint(runs.replace(config, scale="none"))
