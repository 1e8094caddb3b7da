"""Tables and plots of the results, from the files of the finished parts."""

from collections.abc import Iterable
import json
import pathlib
from typing import Any

from frontier_svg import Line, frontier
import numpy as np

from gemma_scope.evals.dictionaries.ratio import Ratio
from gemma_scope.weights import folders

TITLE = "003: which training gives the better dictionary at resid_post[9]"
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"
PLOTS = {"fvu": "FVU", "delta_loss": "delta loss, nats a token"}
UNTRAINED = ("pca", "pca_top_k", "random")


def write_results(out: pathlib.Path, page: pathlib.Path) -> None:
  """Puts the tables between the marks of RESULTS.md, and plots beside it.

  What stands outside the marks, the analysis, stays.
  """
  found = Results(out)
  target = page / "RESULTS.md"
  old = target.read_text(encoding="utf-8") if target.exists() else ""
  if BEGIN not in old:
    old = f"# {TITLE}\n\n{BEGIN}\n{END}\n"
  before, _, rest = old.partition(BEGIN)
  _, _, after = rest.partition(END)
  body = "\n\n".join(found.sections())
  _write(target, f"{before}{BEGIN}\n\n{body}\n\n{END}{after}")
  for number, title in PLOTS.items():
    _write(page / f"{number}.svg", frontier(found.lines(number), title))


class Results:
  """The finished parts of a folder."""

  def __init__(self, out: pathlib.Path):
    self.about = _load(out / "about.json")
    self.training = _load(out / "training.json")
    self.evaluation = _load(out / "evaluation.json")
    tuned = out / "tuned.json"
    self.tuned = _load(tuned) if tuned.exists() else None
    files = sorted((out / "dictionaries").glob("*.json"))
    self.one = {path.stem: _load(path) for path in files}

  @property
  def arms(self) -> list[str]:
    """Trained arms, then untrained ones."""
    members = self.training["members"].values()
    return [*dict.fromkeys(m["arm"] for m in members), *UNTRAINED]

  def of(self, arm: str) -> list[str]:
    """Names of an arm's dictionaries, small L0 first."""
    members = self.training["members"]
    own = [n for n, m in members.items() if m["arm"] == arm]
    if not own:
      own = [n for n in self.one if n.rpartition("_l0_")[0] == arm]
    return sorted(own, key=lambda n: (self.target(n), n))

  def target(self, name: str) -> int:
    """The L0 that a dictionary was made for."""
    return int(name.rpartition("_l0_")[2].split("_")[0])

  def ratio(self, name: str, number: str) -> Ratio:
    """A number as sums over rows."""
    rows = self.one[name]["by_row"][number]
    return Ratio(np.asarray(rows["above"]), np.asarray(rows["below"]))

  def sections(self) -> list[str]:
    """All tables, as Markdown."""
    return [
      self._head(),
      "## Every dictionary",
      self._all(),
      "## Seeds",
      self._seeds(),
      "## Against the recipe, at the same target of L0",
      "FVU and delta loss less those of `jump_relu_matryoshka` of the same "
      "target and seed, row by row. L0 as reached stands above: a gated "
      "dictionary has no target.",
      self._pairs(),
      "## At equal L0",
      "Each arm's points (first seed) joined by lines over log L0, and read "
      "off; empty where its points do not reach so far.",
      self._equal(),
      *self._prefixes(),
      *self._tuning(),
      "![FVU](fvu.svg)",
      "![delta loss](delta_loss.svg)",
    ]

  def lines(self, number: str) -> list[Line]:
    """What a plot shows: all but random directions, which are far above."""
    found = []
    for arm in self.arms:
      if arm == "random":
        continue
      points = []
      for name in self.of(arm):
        l0, y = self.ratio(name, "l0"), self.ratio(name, number).interval()
        points.append((l0.value, y.mean, y.low, y.high))
      found.append(Line(arm, sorted(points), dashed=arm in UNTRAINED))
    return found

  def _head(self) -> str:
    versions = self.about["versions"]
    settings = self.about["config"]["settings"]
    rows, seconds = self.training["rows"], self.training["seconds"]
    lines = {
      "model": self.about["model"],
      "device": self.about["device"],
      "versions": ", ".join(f"{k} {v}" for k, v in versions.items()),
      "trained on": f"{rows:,} rows, batches of {settings['batch_rows']:,}, "
      f"width {settings['width']:,}, {len(self.training['members'])} "
      f"dictionaries side by side in {seconds:.0f} s",
      "judged on": f"{self.evaluation['tokens']:,} held-out tokens in "
      f"{self.evaluation['rows']} rows; losses on {settings['loss_tokens']:,}",
      "brackets": "95 % bootstrap intervals over rows of text",
    }
    return "\n".join(f"- {k}: {v}" for k, v in lines.items())

  def _all(self) -> str:
    head = ["dictionary", "L0", "FVU ↓", "delta loss ↓", "recovered ↑"]
    head += ["cosine ↑", "dead", "dense", "nearest"]
    rows = []
    for arm in self.arms:
      for name in self.of(arm):
        numbers = self.one[name]["numbers"]
        cells = [
          format(self.ratio(name, n).interval(), f".{digits}f")
          for n, digits in (
            *(("l0", 1), ("fvu", 4), ("delta_loss", 4)),
            *(("recovered", 3), ("cosine", 3)),
          )
        ]
        rest = [f"{numbers[n]:.1%}" for n in ("dead", "dense")]
        rows.append([name, *cells, *rest, f"{numbers['nearest']:.3f}"])
    return table(head, rows)

  def _seeds(self) -> str:
    rows = []
    for arm in self.arms:
      by_target: dict[int, list[str]] = {}
      for name in self.of(arm):
        by_target.setdefault(self.target(name), []).append(name)
      for target, names in by_target.items():
        if len(names) < 2:
          continue
        cells = []
        for number in ("l0", "fvu", "delta_loss"):
          values = [self.ratio(n, number).value for n in names]
          cells.append(f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}")
        rows.append([arm, target, len(names), *cells])
    head = ["arm", "target", "seeds", "L0", "FVU", "delta loss"]
    return table(head, rows)

  def _pairs(self) -> str:
    first, rows = self.arms[0], []
    for arm in self.arms[1:]:
      for name in self.of(arm):
        other = name.replace(arm, first, 1)
        if other not in self.one:
          other = f"{other}_seed_0"
        if other not in self.one:
          continue
        cells = []
        for number in ("fvu", "delta_loss"):
          d = self.ratio(name, number).minus(self.ratio(other, number))
          cells.append(f"{d:+.4f}")
        rows.append([name, *cells])
    return table(["dictionary", "FVU", "delta loss"], rows)

  def _equal(self) -> str:
    targets = sorted({self.target(n) for n in self.of(self.arms[0])})
    rows = []
    for arm in self.arms:
      names = [n for n in self.of(arm) if "_seed_" not in n or "_seed_0" in n]
      l0 = np.array([self.ratio(n, "l0").value for n in names])
      cells = []
      for number in ("fvu", "delta_loss"):
        values = np.array([self.ratio(n, number).value for n in names])
        for target in targets:
          cells.append(_read_off(l0, values, target))
      rows.append([arm, *cells])
    head = [f"{n} at {t}" for n in ("FVU", "delta loss") for t in targets]
    return table(["arm", *head], rows)

  def _prefixes(self) -> list[str]:
    having = {n: f for n, f in self.one.items() if f["curves"]}
    if not having:
      return []
    sizes = list(next(iter(having.values()))["curves"]["fvu by prefix"])
    rows = []
    for name, found in having.items():
      curves = found["curves"]
      cells = [
        f"{curves['fvu by prefix'][s]['mean']:.4f} "
        f"(L0 {curves['l0 by prefix'][s]['mean']:.1f})"
        for s in sizes
      ]
      rows.append([name, *cells])
    return ["## Prefixes: FVU", table(["dictionary", *sizes], rows)]

  def _tuning(self) -> list[str]:
    if self.tuned is None:
      return []
    rows = [
      [label, f"{f['l0']:.1f}", f"{f['fvu']:.4f}", f"{f['dead']:.1%}"]
      for label, f in self.tuned["tried"].items()
    ]
    chosen = [
      f"- {arm}: " + ", ".join(f"{k} {v}" for k, v in found.items())
      for arm, found in self.tuned["chosen"].items()
    ]
    head = ["arm, learning rate, L1 weight", "L0", "FVU", "dead"]
    return ["## Tuning", "\n".join(chosen), table(head, rows)]


def table(head: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
  """A Markdown table."""
  head = list(head)
  lines = [head, ["---"] * len(head), *rows]
  return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in lines)


def _read_off(l0: np.ndarray, values: np.ndarray, target: float) -> str:
  """A value between two points; points just beside the target count."""
  order = np.argsort(l0)
  l0, values = l0[order], values[order]
  inside = len(l0) > 1 and 0.95 * l0[0] <= target <= 1.05 * l0[-1]
  if not inside:
    return ""
  return f"{np.interp(np.log(target), np.log(l0), values):.4f}"


def _load(path: pathlib.Path) -> Any:
  return json.loads(path.read_text(encoding="utf-8"))


def _write(path: pathlib.Path, text: str) -> None:
  with folders.new_file(path) as file:
    file.write(text.encode())
