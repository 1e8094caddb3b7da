"""Which Gemma 3 fits which TPU slice: plans, compiled without any TPU.

    pip install "gemma-scope[tpu]"
    python experiments/002_tpu_plan/run.py            # hours; resumes where cut
    python experiments/002_tpu_plan/run.py --only 27b-pt-v5e_16x16
    python experiments/002_tpu_plan/run.py --table    # RESULTS.md again

All five sizes x {v5e:2x2, 4x4, 8x8, 16x16, v5p:2x2x1, 4x4x4, v6e:4x4} in
bfloat16: capture of all residual streams and the backward pass of AttnLRP, at
1,024 and 8,192 tokens, one row for each part of the mesh's `data` axis. Every
plan is one JSON file in out/002_tpu_plan/; plans that are there are not made
again. What a chip does is asked for of capture of 27B at 1,024 tokens alone,
where its share matters most: this takes three more compilations. A plan takes
half a minute of a core (capture) or one and a half (AttnLRP), and two to three
times that at 8,192 tokens. So all at 1,024 tokens come first, and among these
the largest models.

What to expect: capture of 27B at 1,024 tokens fits every slice, at 1.003 times
the ideal FLOPs of a chip; on v5e:2x2 it needs 14.0 of 15.75 GiB.
"""

import argparse
import itertools
import json
import logging
import math
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp

from gemma_scope import planning
from gemma_scope.model.build import abstract_gemma
from gemma_scope.model.config import preset
from gemma_scope.planning.steps import Shape
from gemma_scope.weights.folders import new_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = ROOT / "out" / "002_tpu_plan"
RESULTS = pathlib.Path(__file__).parent / "RESULTS.md"
ANALYSIS = RESULTS.with_name("analysis.md")

SIZES = ("270m", "1b-pt", "4b-pt", "12b-pt", "27b-pt")
MACHINES = (
  *("v5e:2x2", "v5e:4x4", "v5e:8x8", "v5e:16x16"),
  *("v5p:2x2x1", "v5p:4x4x4", "v6e:4x4"),
)
TOKENS = (1024, 8192)
STEPS = ("capture", "attn_lrp")

_log = logging.getLogger(__name__)


def main() -> None:
  """Makes the plans that are missing, then the table."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--only", default="", help="cases so named")
  parser.add_argument("--table", action="store_true", help="no new plans")
  options = parser.parse_args()
  logging.basicConfig(level=logging.INFO, format="%(message)s")
  logging.getLogger("jax").setLevel(logging.WARNING)
  cases = [c for c in all_cases() if options.only in path_of(c).stem]
  for done, case in enumerate(cases):
    path = path_of(case)
    if not options.table and not path.exists():
      start = time.perf_counter()
      found = make_plan(*case)
      OUT.mkdir(parents=True, exist_ok=True)
      with new_file(path) as file:
        file.write(json.dumps(found, indent=1).encode())
      seconds = time.perf_counter() - start
      _log.info(
        "%d of %d: %s, %.0f s", done + 1, len(cases), path.stem, seconds
      )
  with new_file(RESULTS) as file:
    file.write(results_page().encode())


def all_cases() -> list[tuple[str, str, int, str]]:
  """(size, machine, tokens, step) of every plan, few tokens first."""
  return [
    (size, machine, tokens, step)
    for tokens, step, size, machine in itertools.product(
      TOKENS, STEPS, SIZES[::-1], MACHINES[::-1]
    )
  ]


def path_of(case: tuple[str, str, int, str]) -> pathlib.Path:
  """The file of a plan."""
  return OUT / f"{'-'.join(map(str, case)).replace(':', '_')}.json"


def make_plan(size: str, name: str, tokens: int, step: str) -> dict[str, Any]:
  """One plan as JSON; if the compiler itself breaks on it, what it says."""
  machine = planning.find_machine(name)
  batch = machine.mesh.shape["data"]
  shape = Shape(f"gemma-3-{size}", machine, batch, tokens)
  if step == "capture":
    made = planning.capture_step(shape)
  else:
    made = planning.attribute_step(shape, step)
  costs = (size, tokens, step) == (SIZES[-1], TOKENS[0], STEPS[0])
  case = {"size": size, "tokens": tokens, "batch": batch, "step": step}
  try:
    return case | planning.plan_step(made, costs=costs).to_dict()
  except jax.errors.JaxRuntimeError as error:
    _log.warning("%s %s %d %s: %s", size, name, tokens, step, error)
    mesh = list(machine.mesh.devices.shape)
    kind = str(error).partition(":")[0]
    return case | {"machine": {"name": name, "mesh": mesh}, "failed": kind}


def results_page() -> str:
  """RESULTS.md: what was written by hand, and the plans that are there."""
  plans = [json.loads(path.read_text()) for path in OUT.glob("*.json")]
  cases = itertools.product(SIZES, STEPS, TOKENS, MACHINES)
  order = {(s, m, t, step): i for i, (s, step, t, m) in enumerate(cases)}
  plans.sort(
    key=lambda p: order[p["size"], p["machine"]["name"], p["tokens"], p["step"]]
  )
  lines = [
    *ANALYSIS.read_text().splitlines(),
    "",
    "## Weights on a chip, GiB (of how many there are)",
    "",
    *weights_table(),
    "",
    "## Plans",
    "",
    f"Written by `run.py`: {len(plans)} of {len(order)} plans. bfloat16; one "
    "row for each part of the mesh's `data` axis. Memory is of one chip, as "
    "the compiler counts it. Ideal: FLOPs of all matrix products over those "
    "the chips do. Least time: the roofline at published peaks; of products "
    "alone where ideal is empty: there a chip's memory traffic and messages "
    "were not asked for.",
    "",
    "| model | machine | mesh | step | batch x tokens | needed | has | fits "
    "| ideal | least time |",
    "|---|---|---|---|---|---|---|---|---|---|",
    *map(_row, plans),
  ]
  return "\n".join(lines) + "\n"


def weights_table() -> list[str]:
  """GiB of weights on a chip, from shapes and shardings alone."""
  machines = [planning.find_machine(name) for name in MACHINES]
  names = [f"{m.name} ({m.chip.memory / 2**30:.1f})" for m in machines]
  lines = [f"| model | {' | '.join(names)} |", "|---" * (1 + len(names)) + "|"]
  for size in SIZES:
    config = preset(f"gemma-3-{size}")
    cells = []
    for machine in machines:
      model = abstract_gemma(config, jnp.bfloat16, mesh=machine.mesh)
      held = sum(
        2 * math.prod(leaf.sharding.shard_shape(leaf.shape))
        for leaf in jax.tree.leaves(model)
      )
      cells.append(f"{held / 2**30:.2f}")
    lines.append(f"| {size} | {' | '.join(cells)} |")
  return lines


def _row(plan: dict[str, Any]) -> str:
  gib = 2**30
  machine = plan["machine"]
  cells = [
    plan["size"],
    machine["name"],
    "x".join(map(str, machine["mesh"])),
    plan["step"],
    f"{plan['batch']} x {plan['tokens']:,}",
  ]
  if "failed" in plan:
    return f"| {' | '.join(cells)} | compiler: {plan['failed']} | | | | |"
  ideal = plan["efficiency"]
  seconds = plan["seconds"]
  cells += [
    f"{plan['needed'] / gib:.2f} GiB",
    f"{machine['chip']['memory'] / gib:.2f}",
    "yes" if plan["fits"] else "**no**",
    "" if ideal is None else f"{ideal:.0%}",
    f"{max(seconds.values()) * 1e3:.1f} ms" if seconds else "",
  ]
  return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
  main()
