"""Our times and a peer's, taken in turn in one run, and their ratios.

    python -m benchmarks.run SUITE --peer-python PYTHON [--peer PEER]

Each side is a worker process in its own environment, limited to the same
number of cores. They run A B A B …, never at once. See README.md beside this
file.
"""

import argparse
from collections.abc import Iterator
import dataclasses
import datetime
import json
import pathlib
import platform
import statistics
import subprocess
import sys
import time
from typing import Any

from benchmarks.cases import (
  OWN,
  PEERS,
  ROOT,
  SUITES,
  Measurement,
  arguments,
)
from benchmarks.worker import Worker

OURS = "benchmarks.ours"
PAUSE = 0.3  # seconds, for the other side's threads to fall asleep


@dataclasses.dataclass(frozen=True)
class Plan:
  """How measurements are taken.

  Attributes:
    python: Side ("ours", "peer") -> interpreter.
    module: Side -> module of its worker.
    folder: The peer's model folder.
    pairs: Repetitions of each side.
    threads: Cores of each side.
  """

  python: dict[str, str]
  module: dict[str, str]
  folder: str
  pairs: int
  threads: int

  def worker(self, side: str, row: Measurement) -> Worker:
    """Starts one side for one measurement."""
    return Worker(
      self.python[side],
      self.module[side],
      self.threads,
      row.case,
      arguments(row, self.folder),
    )


def pairs(row: Measurement, plan: Plan) -> Iterator[tuple[dict, dict]]:
  """Yields what both sides answered, repetition by repetition."""
  if row.fresh:
    for i in range(plan.pairs + 1):
      both = _fresh(row, plan, "ours"), _fresh(row, plan, "peer")
      if i > 0:  # the first fills caches
        yield both
    return
  with plan.worker("ours", row) as ours, plan.worker("peer", row) as peer:
    ours.warm()
    peer.warm()
    for _ in range(plan.pairs):
      time.sleep(PAUSE)
      left = ours.run() | {"versions": ours.setup["versions"]}
      time.sleep(PAUSE)
      yield left, peer.run() | {"versions": peer.setup["versions"]}


def _fresh(row: Measurement, plan: Plan, side: str) -> dict[str, Any]:
  """One repetition in a new process."""
  with plan.worker(side, row) as worker:
    start = time.perf_counter()
    answer = worker.run()
    total = worker.ready + time.perf_counter() - start
    return answer | {"process": total, "versions": worker.setup["versions"]}


def measure(row: Measurement, plan: Plan) -> dict[str, Any]:
  """Takes one measurement."""
  taken = list(pairs(row, plan))
  result: dict[str, Any] = {"name": row.name, "unit": row.unit}
  for i, side in enumerate(("ours", "peer")):
    answers = [pair[i] for pair in taken]
    seconds = [answer["seconds"] for answer in answers]
    result[side] = {
      "seconds": seconds,
      "median": statistics.median(seconds),
      "check": answers[-1]["check"],
      "peak_bytes": max(answer["peak_bytes"] for answer in answers),
      "versions": answers[-1]["versions"],
    }
    if row.fresh:
      processes = [answer["process"] for answer in answers]
      result[side]["process_median"] = statistics.median(processes)
  ratios = [peer["seconds"] / ours["seconds"] for ours, peer in taken]
  result["ratios"] = ratios
  result["ratio"] = statistics.median(ratios)
  left, right = result["ours"]["check"], result["peer"]["check"]
  scale = max(abs(left), abs(right), 1e-30)
  result["agree"] = abs(left - right) <= row.tolerance * scale
  result["work"] = row.work
  return result


def line(result: dict[str, Any]) -> str:
  """One row of the table."""
  cells = [f"{result['name']:<26}"]
  for side in ("ours", "peer"):
    median = result[side]["median"]
    value = result["work"] / median if result["unit"] != "s" else median
    shown = f"{value:.0f}" if value >= 100 else f"{value:.3g}"
    memory = result[side]["peak_bytes"] / 2**30
    cells.append(f"{shown:>8} {result['unit']:<8} {memory:4.1f} GiB")
  low, high = min(result["ratios"]), max(result["ratios"])
  agree = "same" if result["agree"] else "DIFFERENT"
  cells.append(f"{result['ratio']:5.2f}x ({low:.2f}-{high:.2f})  {agree}")
  return " | ".join(cells)


def prepare_folder(python: str, folder: pathlib.Path) -> None:
  """Has the peer's environment write the weights as a Hugging Face folder."""
  if (folder / "config.json").exists():
    return
  command = [python, "-m", "tests.goldens.gemma_270m", str(folder)]
  subprocess.run(command, cwd=ROOT, check=True)


def manifest(threads: int, pairs: int) -> dict[str, Any]:
  """Where and how the numbers were taken."""
  return {
    "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    "machine": platform.machine(),
    "processor": _processor(),
    "python": platform.python_version(),
    "threads": threads,
    "pairs": pairs,
    "dtype": "float32",
  }


def _processor() -> str:
  path = pathlib.Path("/proc/cpuinfo")
  lines = path.read_text().splitlines() if path.exists() else []
  names = [x.split(":")[1].strip() for x in lines if x.startswith("model name")]
  return names[0] if names else platform.processor()


def parse() -> argparse.Namespace:
  """The command line."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("suite", choices=[*SUITES, "all"])
  parser.add_argument(
    "--peer", choices=list(PEERS), help="by default each case's first peer"
  )
  parser.add_argument("--peer-python", help="the interpreter that has the peer")
  cache = pathlib.Path.home() / ".cache" / "gemma_scope_benchmarks"
  parser.add_argument(
    "--folder",
    type=pathlib.Path,
    default=cache / "gemma-3-270m",
    help="the peer's model folder; written from the GGUF package if missing",
  )
  parser.add_argument("--pairs", type=int, default=7)
  parser.add_argument("--threads", type=int, default=2)
  parser.add_argument("--out", type=pathlib.Path, help="results as JSON")
  return parser.parse_args()


def chosen(options: argparse.Namespace) -> list[tuple[Measurement, str]]:
  """The measurements asked for, with the peer of each."""
  suites = (
    SUITES.values() if options.suite == "all" else [SUITES[options.suite]]
  )
  rows = [row for suite in suites for row in suite]
  found = [
    (row, options.peer or row.peers[0])
    for row in rows
    if options.peer is None or options.peer in row.peers
  ]
  if not found:
    raise SystemExit(f"{options.peer} has no case in suite {options.suite!r}")
  return found


def main() -> None:
  """Measures, prints the table and writes the results."""
  options = parse()
  rows = chosen(options)
  if any(peer not in OWN for _, peer in rows):
    if options.peer_python is None:
      raise SystemExit("--peer-python: the interpreter that has the peer")
    prepare_folder(options.peer_python, options.folder)
  results = []
  print("case                       | ours, peak | peer, peak | peer/ours")
  for row, peer in rows:
    python = sys.executable if peer in OWN else options.peer_python
    plan = Plan(
      {"ours": sys.executable, "peer": python},
      {"ours": OURS, "peer": PEERS[peer]},
      str(options.folder.resolve()),
      options.pairs,
      options.threads,
    )
    result = measure(row, plan) | {"against": peer}
    results.append(result)
    print(line(result), f"({peer})", flush=True)
  out = options.out or ROOT / "out" / f"benchmark_{options.suite}.json"
  out.parent.mkdir(parents=True, exist_ok=True)
  about = manifest(options.threads, options.pairs)
  document = {"manifest": about, "results": results}
  out.write_text(json.dumps(document, indent=1) + "\n")
  print(out)


if __name__ == "__main__":
  main()
