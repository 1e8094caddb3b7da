"""`kill -9` at any moment of a capture; going on loses and doubles nothing."""

import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest

from gemma_scope.activations.store import Store, commits, verify
from tests.activations.store.synthetic import contents
from tests.activations.store.tiny_capture import ROWS, capture, make

ROOT = pathlib.Path(__file__).resolve().parents[3]
COMMAND = [sys.executable, "-m", "tests.activations.store.tiny_capture"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  """What an uninterrupted capture gives."""
  path = tmp_path_factory.mktemp("whole")
  capture(path, make(), ROWS)
  return contents(path)


def run_until(path: pathlib.Path, rows: int, seconds: float) -> bool:
  """Captures; kills that `seconds` after `rows` were told. Whether it did."""
  # Compiled programs are kept; none is being written when a row is told.
  cache = {"JAX_COMPILATION_CACHE_DIR": str(path.parent / "programs")}
  least = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1"}
  process = subprocess.Popen(
    [*COMMAND, str(path)],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    text=True,
    env=os.environ | cache | least,
  )
  assert process.stdout is not None
  assert process.stdout.readline() == "starting\n"
  for line in process.stdout:
    if int(line) >= rows:
      time.sleep(seconds)
      break
  process.kill()
  process.communicate()
  return process.returncode == -9


def kill_and_go_on(
  folder: pathlib.Path, kills: int, seed: int, whole: dict[str, bytes]
) -> None:
  """Kills captures at so many random moments; they end as if they were not.

  A capture may end before its moment comes; then the next one is begun.
  """
  random = np.random.default_rng(seed)
  missing, number = kills, 0
  while missing:
    path = folder / f"store_{number}"
    for rows in np.sort(random.integers(0, ROWS, missing)):
      # A batch takes some milliseconds; most of these are spent committing.
      hit = run_until(path, int(rows), random.uniform(0, 0.02))
      verify(path)
      committed = commits.read_commit(path, 0)
      assert Store.open(path).num_rows == committed.rows
      if not hit:
        break
      missing -= 1
    assert not run_until(path, 10**9, 0)
    assert contents(path) == whole
    number += 1


def test_three_kills(tmp_path, whole):
  kill_and_go_on(tmp_path, 3, 1, whole)


@pytest.mark.slow
def test_twenty_kills(tmp_path, whole):
  kill_and_go_on(tmp_path, 20, 2, whole)
