"""A run to be killed: `python killed.py FOLDER STEP SECONDS`.

Kills itself, by the signal that nothing can catch, so many seconds after the
report of that step; never with step 0. Its rows go through a shuffle buffer.
"""

import os
import signal
import sys
import threading

import numpy as np

from gemma_scope.training.loop import train
from tests.training import runs


class BufferedRows:
  """Rows drawn from a buffer of some batches, half of it filled anew."""

  def __init__(self):
    self._inner = runs.rows(32)
    self.sites, self.batch_rows = self._inner.sites, 32
    self._random = np.random.default_rng(0)
    self._buffer = None

  def __next__(self):
    if self._buffer is None:
      self._buffer = self._batches(4)
    order = self._random.permutation(128)
    mixed = {s: v[order] for s, v in self._buffer.items()}
    fresh = self._batches(1)
    self._buffer = {
      s: np.concatenate([v[32:], fresh[s]]) for s, v in mixed.items()
    }
    return {s: v[:32] for s, v in mixed.items()}

  def _batches(self, count):
    drawn = [next(self._inner) for _ in range(count)]
    return {s: np.concatenate([b[s] for b in drawn]) for s in self.sites}

  def state(self):
    buffer = None
    if self._buffer is not None:
      buffer = {str(s): v for s, v in self._buffer.items()}
    random = self._random.bit_generator.state
    return {"inner": self._inner.state(), "buffer": buffer, "random": random}

  def restore(self, state):
    self._inner.restore(state["inner"])
    self._random.bit_generator.state = state["random"]
    if state["buffer"] is not None:
      self._buffer = {s: state["buffer"][str(s)] for s in self.sites}


def config():
  """Three groups that use every part of the state."""
  aux = runs.group("sae", "batch_top_k").revival
  aux = runs.replace(
    aux,
    dead_after=200,
    aux_k=4,
    aux_pool=8,
    resample_every=7,
    resample_until=90,
  )
  return runs.run(
    runs.group("transcoder", form={"prefixes": (8,), "affine_skip": True}),
    runs.group("sae", "batch_top_k", revival=aux),
    steps=40,
    checkpoint_every=4,
    log_every=1,
  )


def main(folder, step, seconds):
  """Trains, and dies if told to."""

  def watch(report):
    if report.step == step:
      killer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL))
      killer.daemon = True
      killer.start()

  return train(config(), BufferedRows(), folder, watch=watch)


if __name__ == "__main__":
  main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
