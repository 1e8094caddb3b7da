"""Tables of the results, from the files of the finished parts."""

from collections.abc import Callable, Iterable
import json
import pathlib
from typing import Any

import numpy as np
from plain_tables import load, table
from why_tables import cell_tables, cost_tables, why_tables

from gemma_scope.evals import agreement, bootstrap_mean, paired_difference
from gemma_scope.evals.correlation import correlate
from gemma_scope.evals.report import ARROWS
from gemma_scope.evals.tasks.source_token import source_hits
from gemma_scope.weights import folders

BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"


def write_results(out: pathlib.Path, page: pathlib.Path, title: str) -> None:
  """Puts the tables of what is finished between the marks of a page.

  What stands outside the marks, the analysis, stays.
  """
  old = page.read_text(encoding="utf-8") if page.exists() else ""
  if BEGIN not in old:
    old = f"# {title}\n\n{BEGIN}\n{END}\n"
  before, _, rest = old.partition(BEGIN)
  _, _, after = rest.partition(END)
  body = "\n\n".join(sections(out))
  with folders.new_file(page) as file:
    file.write(f"{before}{BEGIN}\n\n{body}\n\n{END}{after}".encode())


def sections(out: pathlib.Path) -> list[str]:
  """All tables, as Markdown."""
  parts = []
  about = out / "about.json"
  if about.exists():
    found = json.loads(about.read_text(encoding="utf-8"))
    parts.append("\n".join(f"- {k}: {v}" for k, v in found.items()))
  for folder in sorted((out / "tokens").glob("*")):
    parts += token_tables(folder)
  parts += randomisation_table(out / "randomisation")
  parts += component_tables(out / "components")
  parts += cell_tables(out / "cell")
  parts += why_tables(out / "why")
  parts += cost_tables(out / "costs")
  return parts


def token_tables(folder: pathlib.Path) -> list[str]:
  """Faithfulness, source hits and agreement of one set of prompts."""
  scored = load(folder.glob("*_scores.json"))
  parts = [f"## Tokens: {folder.name}"]
  about = folder.parents[1].glob(f"about_{folder.name}.json")
  parts += [found["note"] + "." for found in load(about)]
  kinds = sorted({f.stem.split("_", 1)[1] for f in folder.glob("*.json")})
  for kind in (k for k in kinds if k != "scores"):
    chunks = load(folder.glob(f"*_{kind}.json"))
    parts += [f"### Taken away by: {kind}", *_numbers(chunks)]
  if scored and scored[0]["sources"] is not None:
    parts += ["### Finding the source token", _hits(scored)]
  if scored:
    parts += ["### Agreement (Spearman, mean over prompts)", _agree(scored)]
  return parts


def _joined(chunks: list[Any]) -> dict[str, dict[str, np.ndarray]]:
  """Method -> number -> [prompts] of all chunks."""
  first = chunks[0]["values"]
  return {
    method: {
      key: np.concatenate([c["values"][method][key] for c in chunks])
      for key in first[method]
    }
    for method in first
  }


def _numbers(chunks: list[Any]) -> list[str]:
  values, better = _joined(chunks), chunks[0]["better"]
  n = len(next(iter(values["random"].values())))
  head = ["method", *(f"{k} {ARROWS[v]}" for k, v in better.items())]
  rows = [[m, *(bootstrap_mean(values[m][k]) for k in better)] for m in values]
  against = [
    [m]
    + [
      paired_difference(values[m]["abpc"], values[other]["abpc"])
      for other in ("random", "recency", "input_x_gradient")
    ]
    for m in values
  ]
  return [
    f"{n} prompts; mean [95 % bootstrap interval over prompts].",
    table(head, rows),
    "Paired differences of abpc:",
    table(["method", "- random", "- recency", "- input_x_gradient"], against),
  ]


def _hits(scored: list[Any]) -> str:
  rows = []
  for method in [*scored[0]["scores"], "random", "recency"]:
    found = []
    for i, chunk in enumerate(scored):
      here = np.asarray(chunk["candidates"])
      known = {
        "random": np.random.default_rng(i).random(here.shape),
        "recency": np.tile(np.arange(here.shape[1]), (len(here), 1)),
      }
      scores = known.get(method, chunk["scores"].get(method))
      found.append(source_hits(np.asarray(scores), here, chunk["sources"]))
    rows.append(
      [method]
      + [
        bootstrap_mean(np.concatenate([getattr(f, key) for f in found]))
        for key in ("hit", "rank", "share")
      ]
    )
  head = ["method", "source is first ↑", "rank of source ↓", "share ↑"]
  return table(head, rows)


def _agree(scored: list[Any]) -> str:
  width = max(np.shape(chunk["candidates"])[1] for chunk in scored)

  def whole(parts: Iterable[Any]) -> np.ndarray:
    rows = [np.asarray(p) for p in parts]
    return np.concatenate(
      [np.pad(r, ((0, 0), (0, width - r.shape[1]))) for r in rows]
    )

  scores = {
    m: whole(chunk["scores"][m] for chunk in scored)
    for m in scored[0]["scores"]
  }
  found = agreement(scores, whole(chunk["candidates"] for chunk in scored))
  rows = [
    [name, *(f"{v:.2f}" for v in row)]
    for name, row in zip(found.methods, found.matrix())
  ]
  return table(["", *found.methods], rows)


def randomisation_table(folder: pathlib.Path) -> list[str]:
  """Similarity to the real model's scores as layers are randomised."""
  rows, layers = [], []
  for path in sorted(folder.glob("*.json")):
    (found,) = load([path])
    layers = found["layers"]
    for kind, steps in found["numbers"][path.stem].items():
      cells = [
        f"{s['mean']:.2f} [{s['low']:.2f}, {s['high']:.2f}]" for s in steps
      ]
      rows.append([path.stem, kind, *cells])
  if not rows:
    return []
  head = ["method", "Spearman", *(f"top {k} random" for k in layers)]
  return ["## Parameter randomisation", table(head, rows)]


def component_tables(folder: pathlib.Path) -> list[str]:
  """Correlations of every approximation with exact patching."""
  parts: list[str] = []
  about, rows = [], []
  for task in sorted(folder.glob("*")):
    (info,) = load([task / "task.json"])
    pairs = _pairs(task)
    about.append(_about(task.name, info, pairs))
    for site in pairs[0][0]["effects"] if pairs else ():
      rows += _correlations(task.name, site, pairs)
  if about:
    head = [
      "task",
      "pairs",
      "solved",
      "clean",
      "corrupt",
    ]
    parts += ["## Components: tasks", table(head, about)]
  if rows:
    head = ["task", "site", "method", "Pearson", "Spearman"]
    head += ["Pearson by prompt", "Spearman by prompt", "Pearson, changed"]
    head += ["Pearson, without its largest layer", "cells"]
    parts += ["## Components: correlation with activation patching"]
    parts += [table(head, rows)]
  return parts


def _pairs(task: pathlib.Path) -> list[tuple[Any, Any]]:
  """(exact, estimates) of the chunks that have both."""
  found = []
  for path in sorted(task.glob("*_exact.json")):
    other = path.with_name(path.name.replace("_exact", "_estimates"))
    if other.exists():
      found.append(tuple(load([path]) + load([other])))
  return found


def _about(name: str, info: Any, pairs: list[tuple[Any, Any]]) -> list[str]:
  clean, corrupt = (np.mean(info[k]) for k in ("clean", "corrupt"))
  done = sum(len(chunk["first"]) for chunk, _ in pairs)
  return [
    name,
    f"{done} of {info['n']}",
    f"{info['n'] / info['tried']:.0%}",
    f"{clean:.2f}",
    f"{corrupt:.2f}",
  ]


def _correlations(
  task: str, site: str, pairs: list[tuple[Any, Any]]
) -> list[list[object]]:
  """One row a method."""
  exact = _cells(pairs, lambda exact, _: exact["effects"][site])
  first = [f for chunk, _ in pairs for f in chunk["first"]]
  size = np.mean([np.abs(e).reshape(len(e), -1).max(axis=1) for e in exact], 0)
  largest = int(size.argmax())
  others = np.arange(len(size)) != largest
  rows = []
  for method in pairs[0][1]["estimates"]:
    estimates = _cells(
      pairs, lambda _, found, m=method: found["estimates"][m][site]
    )
    found = correlate(estimates, exact)
    changed = correlate(
      [e[:, f:] for e, f in zip(estimates, first)],
      [e[:, f:] for e, f in zip(exact, first)],
    )
    rest = correlate([e[others] for e in estimates], [e[others] for e in exact])
    rows.append(
      [
        task,
        site,
        method,
        found.pearson,
        found.spearman,
        found.pearson_by_prompt,
        found.spearman_by_prompt,
        changed.pearson,
        f"{rest.pearson} (without {largest})",
        found.cells,
      ]
    )
  return rows


def _cells(
  pairs: list[tuple[Any, Any]], pick: Callable[[Any, Any], Any]
) -> list[np.ndarray]:
  """[layers, tokens(, heads)] of every pair."""
  return [
    np.asarray(row)[:, :length]
    for exact, found in pairs
    for row, length in zip(pick(exact, found), exact["lengths"], strict=True)
  ]
