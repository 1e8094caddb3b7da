"""One worker process that times one side of a benchmark on command.

Requests and answers are lines of JSON on standard input and output:

    {"do": "setup", "case": "capture_8x128", "arguments": {...}}
        -> {"versions": {...}, "seconds": 3.1}
    {"do": "warm"}
        -> {}
    {"do": "run"}
        -> {"seconds": 0.92, "check": 2281.03, "peak_bytes": 1503000000,
            "notes": {}}

`check` is a number both sides must agree on: who computes something else is
not faster. `notes` are numbers worth knowing that need not agree. Both are
computed outside the timed part. Standard library only: the workers of other
libraries import this file from their own environments.
"""

from collections.abc import Callable, Mapping
import dataclasses
import gc
import importlib.metadata
import json
import os
import resource
import sys
import time
import traceback
from typing import Any, TextIO


@dataclasses.dataclass(frozen=True)
class Case:
  """What one side runs.

  Attributes:
    call: The timed function; must not return before the work is done.
    check: Reduces what `call` returned to the number that is compared.
    warm: Called once before; `call` if nothing shorter compiles and warms up
      all that it uses.
    notes: What else of `call`'s result is worth reporting.
  """

  call: Callable[[], Any]
  check: Callable[[Any], float]
  warm: Callable[[], Any] | None = None
  notes: Callable[[Any], Mapping[str, float]] = lambda _: {}


Setup = Callable[[Mapping[str, Any]], Case]


def limit_threads() -> None:
  """Keeps this process, and libraries not imported yet, on THREADS cores."""
  count = int(os.environ.get("THREADS", "2"))
  os.environ["OMP_NUM_THREADS"] = str(count)
  if hasattr(os, "sched_setaffinity"):
    cores = sorted(os.sched_getaffinity(0))[:count]
    os.sched_setaffinity(0, cores)


def serve(cases: Mapping[str, Setup], packages: tuple[str, ...]) -> None:
  """Answers requests until standard input ends.

  Args:
    cases: Case name -> function from arguments to a `Case`.
    packages: Distributions whose versions are reported.
  """
  answers = os.fdopen(os.dup(1), "w", buffering=1)
  os.dup2(2, 1)  # whatever a library prints must not look like an answer
  case = None
  for line in sys.stdin:
    request = json.loads(line)
    try:
      if request["do"] == "setup":
        start = time.perf_counter()
        case = cases[request["case"]](request["arguments"])
        seconds = time.perf_counter() - start
        _answer(answers, versions=_versions(packages), seconds=seconds)
      elif request["do"] == "warm":
        (case.warm or case.call)()
        _answer(answers)
      else:
        _answer(answers, **_timed(case))
    except Exception:
      _answer(answers, error=traceback.format_exc())


def _timed(case: Case) -> dict[str, Any]:
  gc.collect()
  start = time.perf_counter()
  result = case.call()
  seconds = time.perf_counter() - start
  # Linux counts kibibytes, macOS bytes.
  unit = 1 if sys.platform == "darwin" else 1024
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
  return {
    "seconds": seconds,
    "check": float(case.check(result)),
    "peak_bytes": peak,
    "notes": dict(case.notes(result)),
  }


def _versions(packages: tuple[str, ...]) -> dict[str, str]:
  return {name: importlib.metadata.version(name) for name in packages}


def _answer(stream: TextIO, **fields: Any) -> None:
  stream.write(json.dumps(fields) + "\n")
