"""Capture on a GPU: tokens/s and model FLOPs utilisation, beside PyTorch's.

    python -m benchmarks.gpu_capture [--peer-python PYTHON] [--budget 100]
    python -m benchmarks.gpu_capture --variants scan,unrolled,narrow,cudnn \
      --no-peer --only "bfloat16 16x1024"
    python -m benchmarks.gpu_capture --tiny        # runs on a CPU, in seconds

All residual streams of 270M-, 1B- and 4B-shaped models, no logits, in bfloat16
and float32, from token ids already on the device. The peer is the same model
in Hugging Face transformers with scaled-dot-product attention and forward
hooks, as it is and with torch.compile on every layer; the better one counts.

The weights are random, and the same on both sides (see `gpu_cases`): the last
column compares the norms of the last residual stream. Speed does not depend on
the values, so no weights need to be at hand. The sides run one after the
other in processes of their own; `--budget` seconds are shared between them,
and cases that nobody got to are named. MFU counts the products of the layers
and the visible pairs of attention. Memory is what our compiled program needs,
and the most that PyTorch had allocated.
"""

import argparse
from collections.abc import Sequence
import dataclasses
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
from typing import Any

from benchmarks.cases import ROOT
from benchmarks.gpu_cases import CASES, TINY, Case, capture_flops, peak_of
from benchmarks.gpu_ours import config_of, tokens_of
from gemma_scope.weights.checkpoint import canonical_shapes

TOLERANCE = {"bfloat16": 2e-2, "float32": 1e-3}
START = 12.0  # seconds to import a library and to end, beside the budget


def main() -> None:
  """Runs both sides, prints the table and writes the results."""
  options = parse()
  cases = [
    c for c in (TINY if options.tiny else CASES) if options.only in c.name
  ]
  sides: dict[str, list[dict[str, Any]]] = {}
  share = options.budget if options.no_peer else options.budget / 2
  sides["ours"] = run_side(
    sys.executable, "benchmarks.gpu_ours", cases, options.variants, share
  )
  if not options.no_peer:
    sides["peer"] = run_side(
      options.peer_python, "benchmarks.peers.hf_gpu", cases, ["compiled"], share
    )
  rows = [line(case, sides) for case in cases]
  print("\n".join([HEADER, *rows]))
  out = ROOT / "out" if options.out is None else options.out
  out.mkdir(parents=True, exist_ok=True)
  path = out / "gpu_capture.json"
  path.write_text(json.dumps(sides, indent=1) + "\n")
  print(path)


def parse() -> argparse.Namespace:
  """The command line."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument(
    "--peer-python", default=sys.executable, help="an interpreter with PyTorch"
  )
  parser.add_argument("--no-peer", action="store_true", help="ours alone")
  parser.add_argument("--budget", type=float, default=100.0, help="seconds")
  parser.add_argument("--only", default="", help="cases that contain this")
  parser.add_argument("--tiny", action="store_true", help="tiny models")
  parser.add_argument("--out", type=pathlib.Path, help="a folder")
  parser.add_argument(
    "--variants", type=lambda s: s.split(","), default=[], help="see gpu_ours"
  )
  return parser.parse_args()


def run_side(
  python: str,
  module: str,
  cases: Sequence[Case],
  variants: list[str],
  seconds: float,
) -> list[dict[str, Any]]:
  """What a side's process wrote, also when it had to be ended."""
  given = {
    "cases": [dataclasses.astuple(case) for case in cases],
    "variants": variants,
    "budget": max(seconds - START, 1.0),
    "sizes": {case.size: sizes_of(case.size, cases) for case in cases},
  }
  environment = os.environ | {
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
  }
  with tempfile.TemporaryDirectory() as folder:
    asked, answers = (pathlib.Path(folder, n) for n in ("asked", "answers"))
    asked.write_text(json.dumps(given))
    answers.touch()
    command = [python, "-m", module, str(asked), str(answers)]
    try:
      subprocess.run(command, cwd=ROOT, env=environment, timeout=seconds)
    except subprocess.TimeoutExpired:
      print(f"{module}: ended after {seconds:.0f} s", file=sys.stderr)
    return [json.loads(row) for row in answers.read_text().splitlines()]


def sizes_of(size: str, cases: Sequence[Case]) -> dict[str, Any]:
  """All that the peer must know of a size."""
  config = config_of(size)
  shapes = canonical_shapes(config.sizes)
  tokens = {
    case.name: tokens_of(case, config.vocab_size).tolist()
    for case in cases
    if case.size == size
  }
  return dataclasses.asdict(config) | {
    "vocabulary": config.vocab_size,
    "shapes": shapes,
    "tokens": tokens,
  }


HEADER = (
  f"{'case':<24} {'side':<12} {'tokens/s':>11} {'range':>21} {'MFU':>6} "
  f"{'compile':>8} {'memory':>9}  peer/ours, numbers"
)


def line(case: Case, sides: dict[str, list[dict[str, Any]]]) -> str:
  """The rows of one case: ours, its variants, the peer's."""
  found = {
    f"{side} {row['variant']}".strip(): row
    for side, rows in sides.items()
    for row in rows
    if row["case"] == case.name
  }
  ours = found.get("ours", {})
  return "\n".join(_cells(case, side, row, ours) for side, row in found.items())


def _cells(
  case: Case, side: str, row: dict[str, Any], ours: dict[str, Any]
) -> str:
  start = f"{case.name:<24} {side:<12} "
  if "error" in row:
    return start + row["error"].splitlines()[0][:100]
  middle = statistics.median(row["seconds"])
  low, high = (case.tokens / s(row["seconds"]) for s in (max, min))
  sizes = dataclasses.asdict(config_of(case.size))
  peak = peak_of(row["device"], case.dtype)
  used = ""
  if peak is not None:
    used = f"{capture_flops(sizes, case) / middle / peak:.1%}"
  cells = (
    f"{case.tokens / middle:>11,.0f} {f'{low:,.0f}-{high:,.0f}':>21} {used:>6} "
    f"{row['compiling']:>6.1f} s {row['memory'] / 2**30:>5.1f} GiB"
  )
  return start + cells + _compared(case, side, row, ours)


def _compared(
  case: Case, side: str, row: dict[str, Any], ours: dict[str, Any]
) -> str:
  """Seconds of a row over those of ours, and whether the numbers agree."""
  if side == "ours" or "seconds" not in ours:
    return ""
  ratio = statistics.median(row["seconds"]) / statistics.median(ours["seconds"])
  left, right = row["check"], ours["check"]
  far = abs(left - right) > TOLERANCE[case.dtype] * max(abs(left), abs(right))
  return f"  {ratio:.2f}x {'DIFFERENT' if far else 'same'}"


if __name__ == "__main__":
  main()
