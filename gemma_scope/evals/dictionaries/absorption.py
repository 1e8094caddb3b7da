"""Absorption: does a concept's latent fail where a narrower one takes over?

For each first letter, on single tokens: a logistic probe w of the vector; the
main latents, which are those that are most deviations larger in the class
(another is taken as long as that raises a probe's F1 by 0.03); then of the
held-out tokens with the letter that the probe gets right

    missed    no main latent is active
    absorbed  missed, and one other latent j writes most of the letter:
              f_j (w_j . w) is the largest of all, at least half of what all
              latents write along w together, and cos(w_j, w) > 0.1

A latent for " snake" that also writes "begins with s", while the latent for s
keeps silent, is such a j. Source: Chanin et al. 2024, "A is for Absorption",
section 4; j is found there by ablation through the model, here by projection on
the probe, as in SAEBench (Karvonen et al. 2025). Principal components are never
silent and hardly ever absorb; `baselines.pca_top_k` and random dictionaries are
what to compare with.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

from jaxtyping import Bool, Int
import numpy as np

from gemma_scope.analysis import probe_fits
from gemma_scope.display import table_html
from gemma_scope.evals.dictionaries.concepts import Split
from gemma_scope.evals.dictionaries.ratio import Ratio, mean_of
from gemma_scope.evals.dictionaries.representations import (
  BASELINES,
  L2,
  Features,
  LinearProbe,
  Represented,
)
from gemma_scope.evals.dictionaries.sparse_probing import gaps

MOST_MAIN = 5
GAIN = 0.03
COSINE = 0.1
SHARE = 0.5
MAIN = "main latents a letter"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Absorption:
  """How often main latents fail, and how often another takes over.

  Attributes:
    classes: The letters.
    missed: Dictionary -> share of tokens; rows of a `Ratio` are tokens.
    absorbed: The same, of those taken over.
    main: Dictionary -> letter -> its main latents.
    by_class: Dictionary -> letter -> share absorbed.
  """

  classes: tuple[str, ...]
  missed: Mapping[str, Ratio]
  absorbed: Mapping[str, Ratio]
  main: Mapping[str, Mapping[str, tuple[int, ...]]]
  by_class: Mapping[str, Mapping[str, float]]

  def means(self) -> dict[str, dict[str, float]]:
    """The numbers without intervals, by the headings of the table."""
    return {
      name: {
        "missed": missed.value,
        "absorbed": self.absorbed[name].value,
        MAIN: float(np.mean([len(m) for m in self.main[name].values()])),
      }
      for name, missed in self.missed.items()
    }

  def table(self) -> tuple[list[str], list[list[str]]]:
    """Headings and a row for each dictionary."""
    rows = []
    for name, numbers in self.means().items():
      both = (self.missed[name], self.absorbed[name])
      cells = [str(ratio.interval()) for ratio in both]
      rows.append([name, *cells, f"{numbers[MAIN]:.1f}"])
    return ["dictionary", "missed", "absorbed", MAIN], rows

  def to_dict(self) -> dict[str, Any]:
    """Everything as JSON values."""
    return {
      name: {
        "missed": self.missed[name].to_dict(),
        "absorbed": self.absorbed[name].to_dict(),
        "main": {c: list(m) for c, m in self.main[name].items()},
        "by letter": dict(self.by_class[name]),
      }
      for name in self.missed
    }

  def __repr__(self) -> str:
    head, rows = self.table()
    return "\n".join(", ".join(row) for row in [head, *rows])

  def _repr_html_(self) -> str:
    return table_html(*self.table(), title="Absorption of first letters")


def absorption(seen: Represented) -> Absorption:
  """Measures absorption on single tokens, such as `concepts.first_letter`.

  Args:
    seen: The labelled tokens, see `represent`.
  """
  classes = seen.texts.classes
  ours = [one for one in seen.features if one.name not in BASELINES]
  missed, absorbed, main, by_class = {}, {}, {}, {}
  for one in ours:
    found = {
      name: _letter(one, own, probe, seen.split)
      for name, own, probe in zip(classes, seen.labels, seen.probes(one))
    }
    gone, taken = (
      np.concatenate([f[i] for f in found.values()]).astype(float)
      for i in (0, 1)
    )
    missed[one.name] = mean_of(gone)
    absorbed[one.name] = mean_of(taken)
    main[one.name] = {name: f[2] for name, f in found.items()}
    by_class[one.name] = {
      name: float(f[1].mean()) for name, f in found.items() if len(f[1])
    }
  return Absorption(classes, missed, absorbed, main, by_class)


def _letter(
  one: Features,
  labels: Bool[np.ndarray, " texts"],
  probe: LinearProbe,
  split: Split,
) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
  """Whether each token that the probe gets right is missed, is absorbed; and
  the main latents.
  """
  (w, threshold), (fit, held) = probe, split
  main = main_latents(one.values, labels, fit, held)
  right = held[labels[held] & (one.vectors[held] @ w > threshold)]
  f = one.values[right]
  missed = ~(f[:, list(main)] != 0).any(axis=1)
  along = f * (one.writes @ w)[None, :]
  lengths = np.linalg.norm(one.writes, axis=1)
  cosines = (one.writes @ w) / np.where(lengths > 0, lengths, 1.0)
  top = along.argmax(axis=1)
  most = np.take_along_axis(along, top[:, None], axis=1)[:, 0]
  total = along.sum(axis=1)
  takes_over = (most > 0) & (most >= SHARE * total) & (cosines[top] > COSINE)
  return missed, missed & takes_over, main


def main_latents(
  values: np.ndarray,
  labels: Bool[np.ndarray, " texts"],
  fit: Int[np.ndarray, " fitted"],
  held: Int[np.ndarray, " held"],
) -> tuple[int, ...]:
  """Latents that are larger in the class, as long as each raises F1."""
  order = np.argsort(-gaps(values[fit], labels[fit]), kind="stable")
  best, count = -1.0, 0
  for k in range(1, MOST_MAIN + 1):
    x = values[:, order[:k]]
    w, threshold = probe_fits.logistic(x[fit], labels[fit], L2)
    score = f1(x[held] @ w > threshold, labels[held])
    if k > 1 and score < best + GAIN:
      break
    best, count = score, k
  return tuple(int(i) for i in order[:count])


def f1(said: Bool[np.ndarray, " n"], labels: Bool[np.ndarray, " n"]) -> float:
  """The harmonic mean of precision and recall; 0 where nothing is right."""
  right = float((said & labels).sum())
  return 2 * right / max(float(said.sum() + labels.sum()), 1.0)
