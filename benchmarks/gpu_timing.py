"""What both workers of benchmarks.gpu_capture share. Standard library only.

A batch is timed in a row of calls with one wait at the end, as a stream of
batches is captured: neither side waits for the device between them.
"""

from collections.abc import Callable
import dataclasses
import gc
import json
import sys
import time
import traceback
from typing import Any

from benchmarks.gpu_cases import Case

REPETITIONS = 5
LEAST = 0.25  # seconds of one repetition


def arguments() -> dict[str, Any]:
  """What the coordinator wrote for this worker."""
  with open(sys.argv[1]) as file:
    return json.load(file)


def repeat(call: Callable[[], Any], wait: Callable[[Any], Any]) -> list[float]:
  """Seconds of a call, one number a repetition."""
  wait(call())
  start = time.perf_counter()
  wait(call())
  once = time.perf_counter() - start
  count = max(2, min(50, round(LEAST / once)))
  taken = []
  for _ in range(REPETITIONS):
    start = time.perf_counter()
    for _ in range(count):
      last = call()
    wait(last)
    taken.append((time.perf_counter() - start) / count)
  return taken


@dataclasses.dataclass
class Results:
  """Lines of a file, one a case; none is begun once the budget is spent.

  Attributes:
    path: The file.
    budget: Seconds of this process.
  """

  path: str
  budget: float

  def __post_init__(self) -> None:
    self._start = time.perf_counter()

  def add(
    self, case: Case, variant: str, measure: Callable[[], dict[str, Any]]
  ) -> None:
    """Measures a case and writes down what came of it."""
    begun = time.perf_counter()
    if begun - self._start > self.budget:
      found: dict[str, Any] = {"error": "not run: the time was up"}
    else:
      try:
        found = measure()
      except Exception as error:
        traceback.print_exc()
        found = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
    gc.collect()
    took = time.perf_counter() - begun
    row = {"case": case.name, "variant": variant, "took": took} | found
    with open(self.path, "a") as file:
      file.write(json.dumps(row) + "\n")
