"""Memory as planned against memory as used.

    python -m benchmarks.plan_memory                  # this computer's CPU
    python -m benchmarks.plan_memory --machine gpu

Every row is a process of its own. It plans a step, compiles it, makes its
arguments and runs it once. What the run needed is

- on a CPU, the growth of the process's resident memory from before there were
  arguments to its peak in the run (Linux only: the peak is reset in between);
- on a GPU, `peak_bytes_in_use` of JAX's allocator.

The plan is the sum over arguments, outputs and temporaries. Expect a few per
cent on a GPU, and up to 15 % on a CPU, where libraries have buffers of their
own. The weights are made up: memory does not depend on them.
"""

import argparse
import ctypes
import dataclasses
import gc
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

from benchmarks.cases import ROOT

# (model, step, batch, tokens, dtype)
Case = tuple[str, str, int, int, str]
CPU_CASES: tuple[Case, ...] = (
  ("gemma-3-270m", "capture", 8, 128, "float32"),
  ("gemma-3-270m", "capture", 4, 512, "float32"),
  ("gemma-3-270m", "capture", 16, 256, "float32"),
  ("gemma-3-270m", "attn_lrp", 2, 256, "float32"),
)
GPU_CASES: tuple[Case, ...] = (
  ("gemma-3-270m", "capture", 16, 1024, "bfloat16"),
  ("gemma-3-270m", "capture", 64, 1024, "bfloat16"),
  ("gemma-3-270m", "attn_lrp", 16, 1024, "bfloat16"),
  ("gemma-3-270m", "capture", 16, 1024, "float32"),
  ("gemma-3-4b-pt", "capture", 16, 1024, "bfloat16"),
)


def main() -> None:
  """Runs every case in a process of its own, or one of them in this one."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--machine", choices=("cpu", "gpu"), default="cpu")
  parser.add_argument("--only", default="", help="cases that contain this")
  parser.add_argument("--case", help=argparse.SUPPRESS)
  parser.add_argument("--out", type=pathlib.Path, default=ROOT / "out")
  options = parser.parse_args()
  if options.case is not None:
    print(json.dumps(measure(tuple(json.loads(options.case)), options.machine)))
    return
  print(f"{'case':<44} {'planned':>11} {'used':>11}  planned/used")
  found = []
  for case in CPU_CASES if options.machine == "cpu" else GPU_CASES:
    if options.only in name_of(case):
      row = in_a_process(case, options.machine)
      found.append({"case": name_of(case)} | row)
      print(line(found[-1]), flush=True)
  options.out.mkdir(parents=True, exist_ok=True)
  path = options.out / f"plan_memory_{options.machine}.json"
  path.write_text(json.dumps(found, indent=1) + "\n")
  print(path)


def name_of(case: Case) -> str:
  """Such as `gemma-3-270m capture 8x128 float32`."""
  model, step, batch, tokens, dtype = case
  return f"{model} {step} {batch}x{tokens} {dtype}"


def line(row: dict[str, Any]) -> str:
  """One row of the table."""
  if "error" in row:
    return f"{row['case']:<44} {row['error']}"
  planned, used = row["planned"], row["used"]
  cells = [f"{n / 2**20:>7.0f} MiB" for n in (planned, used)]
  return f"{row['case']:<44} {' '.join(cells)}  {planned / used:.3f}"


def in_a_process(case: Case, machine: str) -> dict[str, Any]:
  """What a new process measures."""
  command = [sys.executable, "-m", "benchmarks.plan_memory"]
  command += ["--machine", machine, "--case", json.dumps(case)]
  environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
  done = subprocess.run(
    command, cwd=ROOT, env=environment, capture_output=True, text=True
  )
  lines = done.stdout.splitlines()
  if done.returncode or not lines:
    return {"error": done.stderr.strip().splitlines()[-1][:200]}
  return json.loads(lines[-1])


def measure(case: Case, machine: str) -> dict[str, Any]:
  """Plans a step, runs it, and compares."""
  import jax

  from gemma_scope import planning
  from gemma_scope.planning.steps import Shape

  model, kind, batch, tokens, dtype = case
  there = planning.find_machine(machine)
  shape = Shape(model, there, batch, tokens, dtype, scan=False)
  if kind == "capture":
    step = planning.capture_step(shape)
  else:
    step = planning.attribute_step(shape, kind)
  plan = planning.plan_step(step, costs=False)
  compiled = step.lower().compile()
  _, abstract = step.make(step.config, batch)
  before = resident_bytes()
  arguments = jax.block_until_ready(jax.tree.map(_filled, abstract))
  reset_peak()
  jax.block_until_ready(compiled(*arguments))
  assert plan.memory is not None
  device = there.mesh.devices.flat[0]
  stats = device.memory_stats() or {}
  used = stats.get("peak_bytes_in_use", peak_bytes() - before)
  by_kind = dataclasses.asdict(plan.memory)
  return {
    "planned": plan.needed,
    "used": used,
    "by_kind": by_kind,
    "device": device.device_kind,
    "jax": jax.__version__,
  }


def _filled(leaf: Any) -> Any:
  """An array of an abstract one's shape, its memory touched."""
  import jax
  import jax.numpy as jnp

  value = 1 if jnp.issubdtype(leaf.dtype, jnp.integer) else 0.01
  fill = jax.jit(
    lambda: jnp.full(leaf.shape, value, leaf.dtype),
    out_shardings=leaf.sharding,
  )
  return fill()


def resident_bytes() -> int:
  """Resident memory of this process, freed memory given back first."""
  gc.collect()
  _malloc_trim()
  return _status("VmRSS")


def peak_bytes() -> int:
  """The most resident memory since `reset_peak`."""
  return _status("VmHWM")


def reset_peak() -> None:
  """Begins a new count of the most resident memory."""
  gc.collect()
  _malloc_trim()
  path = pathlib.Path("/proc/self/clear_refs")
  if path.exists():
    path.write_text("5")


def _malloc_trim() -> None:
  if sys.platform == "linux":
    ctypes.CDLL(None).malloc_trim(0)


def _status(name: str) -> int:
  path = pathlib.Path("/proc/self/status")
  for row in path.read_text().splitlines() if path.exists() else ():
    if row.startswith(name):
      return int(row.split()[1]) * 1024
  return 0


if __name__ == "__main__":
  main()
