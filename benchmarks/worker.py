"""The coordinator's end of a worker process."""

import json
import os
import subprocess
import tempfile
import time
from typing import Any

from benchmarks.cases import ROOT


class Worker:
  """A process that answers the requests of benchmarks.protocol.

  Attributes:
    setup: What the worker said to the request `setup`.
    ready: Seconds from the start of the process to the end of its setup.
  """

  def __init__(
    self, python: str, module: str, threads: int, case: str, given: dict
  ):
    environment = os.environ | {
      "THREADS": str(threads),
      "PYTHONPATH": str(ROOT),
      "HF_HUB_OFFLINE": "1",
      "TOKENIZERS_PARALLELISM": "false",
    }
    self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115
    start = time.perf_counter()
    self._process = subprocess.Popen(
      [python, "-W", "ignore", "-m", module],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=self._stderr,
      text=True,
      cwd=ROOT,
      env=environment,
    )
    self.setup = self._ask(do="setup", case=case, arguments=given)
    self.ready = time.perf_counter() - start

  def warm(self) -> None:
    """Compiles and warms up, not timed."""
    self._ask(do="warm")

  def run(self) -> dict[str, float]:
    """One timed repetition: seconds, check, peak_bytes."""
    return self._ask(do="run")

  def close(self) -> None:
    """Ends the process."""
    self._process.communicate()
    self._stderr.close()

  def __enter__(self) -> "Worker":
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def _ask(self, **request: Any) -> dict[str, Any]:
    try:
      self._process.stdin.write(json.dumps(request) + "\n")
      self._process.stdin.flush()
    except BrokenPipeError:
      pass  # it has died: say so below
    line = self._process.stdout.readline()
    if not line:
      code = self._process.wait()
      self._stderr.seek(0)
      said = self._stderr.read()[-2000:]
      raise SystemExit(f"{self._process.args} ended with {code}:\n{said}")
    answer = json.loads(line)
    if "error" in answer:
      raise SystemExit(f"{self._process.args}:\n{answer['error']}")
    return answer
