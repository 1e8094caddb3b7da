"""Training steps of dictionaries, ours and two peers', and their ratios.

    python -m benchmarks.training --peer-python PYTHON [--tiny]

SAELens and dictionary_learning take in turn with us, A B C A B C …, each in a
worker process bound to the same cores: batches of stored rows, gathered from a
memory-mapped array, scaled, one step of the optimiser. At last several sweep
members side by side against one alone. See README.md beside this file.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
import concurrent.futures
import contextlib
import dataclasses
import json
import pathlib
import statistics
import sys
import tempfile
import time
from typing import Any

from benchmarks.cases import ROOT
from benchmarks.run import PAUSE, manifest
from benchmarks.training_rows import write_rows
from benchmarks.worker import Worker

OURS = "gemma_scope"
# Side -> module of its worker.
MODULES = {
  OURS: "benchmarks.training_ours",
  "saelens": "benchmarks.peers.saelens_steps",
  "dictionary_learning": "benchmarks.peers.dictionary_learning_steps",
}
ACTIVATIONS = ("jump_relu", "batch_top_k", "top_k")
ALONE, TOGETHER = "alone", "together"


@dataclasses.dataclass(frozen=True)
class Size:
  """How large everything is.

  Attributes:
    widths: Of the dictionaries.
    batch: Rows in a batch.
    d: Numbers of a row.
    k: Latents kept a row, or the target.
    rows: Stored ones.
    members: Of a sweep.
  """

  widths: tuple[int, ...] = (4096, 16384)
  batch: int = 4096
  d: int = 640
  k: int = 64
  rows: int = 65_536
  members: int = 4


TINY = Size((256, 512), batch=512, d=64, k=8, rows=8192)


@dataclasses.dataclass(frozen=True)
class Side:
  """One of those that take turns.

  Attributes:
    name: For the table.
    module: Of its worker.
    python: Its interpreter.
    given: Arguments of its case.
  """

  name: str
  module: str
  python: str
  given: Mapping[str, Any]

  @property
  def work(self) -> int:
    """Rows of one repetition, times members."""
    given = self.given
    return given["steps"] * given["batch"] * given.get("members", 1)


def rounds(
  sides: Sequence[Side], activation: str, options: argparse.Namespace
) -> Iterator[dict[str, dict[str, Any]]]:
  """What every side answered, round by round, after warming up."""

  def start(side: Side) -> Worker:
    return Worker(
      side.python,
      side.module,
      options.threads,
      activation,
      dict(side.given),
    )

  with contextlib.ExitStack() as stack:
    with concurrent.futures.ThreadPoolExecutor() as pool:
      workers = list(pool.map(start, sides))
    for worker in workers:
      stack.enter_context(worker)
    for worker in workers:
      worker.warm()
    for _ in range(options.rounds):
      answers = {}
      for side, worker in zip(sides, workers):
        time.sleep(PAUSE)
        answers[side.name] = worker.run() | {
          "versions": worker.setup["versions"]
        }
      yield answers


def measure(
  sides: Sequence[Side], activation: str, options: argparse.Namespace
) -> dict[str, Any]:
  """Rates of all sides, and of the first one in units of each other."""
  taken = list(rounds(sides, activation, options))
  result: dict[str, Any] = {"activation": activation, "sides": {}}
  for side in sides:
    answers = [answer[side.name] for answer in taken]
    rates = [side.work / answer["seconds"] for answer in answers]
    result["sides"][side.name] = {
      "rows_per_second": rates,
      "median": statistics.median(rates),
      "check": answers[-1]["check"],
      "notes": answers[-1]["notes"],
      "peak_bytes": max(answer["peak_bytes"] for answer in answers),
      "versions": answers[-1]["versions"],
    }
  first = result["sides"][sides[0].name]
  for side in sides[1:]:
    other = result["sides"][side.name]
    pairs = zip(first["rows_per_second"], other["rows_per_second"])
    other["ratios"] = [ours / theirs for ours, theirs in pairs]
    other["ratio"] = statistics.median(other["ratios"])
  checks = [side["check"] for side in result["sides"].values()]
  result["same_rows"] = max(checks) - min(checks) <= 1e-6 * max(checks)
  return result


def show(result: dict[str, Any]) -> None:
  """Prints the rows of the table."""
  for name, side in result["sides"].items():
    notes = side["notes"]
    cells = [
      f"{result['activation']} {result['width']}".ljust(18),
      f"{name:<20}",
      f"{side['median']:8.0f} rows/s",
      f"{side['peak_bytes'] / 2**30:5.1f} GiB",
      f"FVU {notes['fvu']:.3f} L0 {notes['l0']:6.0f}",
    ]
    if "ratio" in side:
      low, high = min(side["ratios"]), max(side["ratios"])
      cells.append(f"{side['ratio']:5.2f}x ({low:.2f}-{high:.2f})")
    if not result["same_rows"]:
      cells.append("OTHER ROWS")
    print(" | ".join(cells), flush=True)


def against_peers(
  activation: str, given: dict[str, Any], options: argparse.Namespace
) -> dict[str, Any]:
  """One cell: an activation at a width, everybody."""
  sides = [
    Side(name, module, options.peer_python, given)
    for name, module in MODULES.items()
    if name == OURS or name in options.peers
  ]
  sides[0] = dataclasses.replace(sides[0], python=sys.executable)
  return measure(sides, activation, options) | {"width": given["width"]}


def side_by_side(
  activation: str,
  given: dict[str, Any],
  members: int,
  options: argparse.Namespace,
) -> dict[str, Any]:
  """Rows times members a second of a sweep, against one of its members."""
  sides = [
    Side(name, MODULES[OURS], sys.executable, given | {"members": count})
    for name, count in ((TOGETHER, members), (ALONE, 1))
  ]
  found = measure(sides, activation, options)
  return found | {"width": given["width"], "members": members}


def parse() -> argparse.Namespace:
  """The command line."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument(
    "--peer-python", required=True, help="the interpreter that has the peers"
  )
  peers = [name for name in MODULES if name != OURS]
  parser.add_argument("--peers", nargs="*", default=peers, choices=peers)
  parser.add_argument(
    "--activations", nargs="*", default=ACTIVATIONS[:2], choices=ACTIVATIONS
  )
  parser.add_argument("--widths", nargs="*", type=int)
  parser.add_argument("--rounds", type=int, default=4)
  parser.add_argument("--threads", type=int, default=2)
  parser.add_argument("--rows", help="real rows: a .npy file of [rows, d]")
  parser.add_argument("--tiny", action="store_true", help="to try it quickly")
  parser.add_argument("--no-sweep", action="store_true")
  parser.add_argument("--out", type=pathlib.Path, help="results as JSON")
  return parser.parse_args()


def main() -> None:
  """Measures, prints the table and writes the results."""
  options = parse()
  size = TINY if options.tiny else Size()
  widths = options.widths or size.widths
  cache = pathlib.Path(tempfile.gettempdir()) / "gemma_scope_benchmarks"
  rows = options.rows or str(cache / f"rows_{size.rows}x{size.d}.npy")
  if not options.rows:
    write_rows(pathlib.Path(rows), size.rows, size.d)
  common = {"rows": rows, "batch": size.batch, "k": size.k}
  results = []

  def add(result: dict[str, Any]) -> None:
    results.append(result)
    show(result)

  for width in widths:
    # Long steps are timed one by one.
    given = common | {"width": width, "steps": 2 if width < 8192 else 1}
    for activation in options.activations:
      add(against_peers(activation, given, options))
  if not options.no_sweep:
    given = common | {"width": min(widths), "steps": 1}
    for activation in options.activations:
      add(side_by_side(activation, given, size.members, options))
  out = options.out or ROOT / "out" / "benchmark_training.json"
  out.parent.mkdir(parents=True, exist_ok=True)
  about = manifest(options.threads, options.rounds) | dataclasses.asdict(size)
  document = {"manifest": about, "results": results}
  out.write_text(json.dumps(document, indent=1) + "\n")
  print(out)


if __name__ == "__main__":
  main()
