"""Tables of parts (c) and costs: why methods differ, and what they cost."""

import itertools
import pathlib

import numpy as np
from plain_tables import load, table

from gemma_scope.evals import bootstrap_mean, paired_difference


def why_tables(folder: pathlib.Path) -> list[str]:
  """What the softmax does to relevance, and signs to an order."""
  parts: list[str] = []
  for path in sorted(folder.glob("*.json")):
    (found,) = load([path])
    name, kind = path.stem.split("_")
    if kind == "leaks":
      totals = np.asarray(found["totals"]) / np.asarray(found["target"])
      rows = [
        [i, bootstrap_mean(before), bootstrap_mean(before - after)]
        for i, (before, after) in enumerate(itertools.pairwise(totals))
      ]
      head = ["layer", "in front of it", "made (+) or lost (-) in it"]
      note = f"Relevance of AttnLRP as a share of the target, {name}"
    else:
      values = {k: np.asarray(v) for k, v in found["abpc"].items()}
      rows = [
        [k, bootstrap_mean(v), paired_difference(v, values["random"])]
        for k, v in values.items()
      ]
      head = ["scores", "abpc ↑", "- random"]
      note = f"Area between the curves, {name}, taken away by: {kind}"
    parts += [f"{note} ({found['device']}):", table(head, rows)]
  return ["## Why: the softmax, and signs", *parts] if parts else []


def cell_tables(folder: pathlib.Path) -> list[str]:
  """Distances of two prompts at the changed token, and the way between."""
  ways, apart, head, site, device = [], [], [], "", ""
  for path in sorted(folder.glob("*.json")):
    (found,) = load([path])
    site, device = found["site"], found["device"]
    head = [f"{share:g}" for share in found["shares"]]
    means = [f"{np.mean(row):.1f}" for row in found["target"]]
    ways.append([path.stem, len(found["target"][0]), *means])
    layers = range(min(8, len(found["lengths"]) // 2))
    for name in ("resid_mid", "mlp_write"):
      pairs = [
        [np.mean(found[kind][f"{name}[{i}]"]) for i in layers]
        for kind in ("distances", "lengths")
      ]
      apart.append(
        [path.stem, name, *(f"{d:.0f} of {n:.0f}" for d, n in zip(*pairs))]
      )
  if not ways:
    return []
  layers = [f"layer {i}" for i in range(len(apart[0]) - 2)]
  return [
    "## One cell: the way between two writes",
    f"Target when {site} at the changed token is moved from what it is in the "
    f"clean run (0) to what it is in the corrupt run (1), mean ({device}):",
    table(["task", "pairs", *head], ways),
    "Distance between both runs at that token, of the clean run's length:",
    table(["task", "site", *layers], apart),
  ]


def cost_tables(folder: pathlib.Path) -> list[str]:
  """What methods cost, on prompts of natural text and on pairs of tasks."""
  parts: list[str] = []
  for path in sorted(folder.glob("*.json")):
    (found,) = load([path])
    if path.stem == "tokens":
      head = ["method", "forward passes", "seconds a prompt"]
      rows = [
        [m, f"{c['forwards']:.1f}", f"{c['seconds']:.4f}"]
        for m, c in found["cost"].items()
      ]
      note = f"{found['prompts']} prompts of natural text"
    else:
      head = ["patching", "seconds a pair", "runs a pair"]
      rows = [["exact", f"{found['exact']:.3f}", f"{found['runs']:.0f}"]]
      rows += [[m, f"{s:.3f}", ""] for m, s in found["estimates"].items()]
      note = f"{found['pairs']} pairs of {path.stem}"
    parts.append(f"{note}, {found['device']}, compilation left out:")
    parts.append(table(head, rows))
  return ["## Cost", *parts] if parts else []
