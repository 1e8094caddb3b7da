"""Targeted perturbation: can a concept be taken out, and nothing else?

TPP. For each class c: a linear probe; the k features that help it most, by
(mean of f on c - mean of f elsewhere) * (w_j . probe_c); these taken out of the
held-out vectors (see `representations`), what each probe loses in accuracy:

    TPP = mean over c of loss(probe c, without c's features)
        - mean over c and other d of loss(probe d, without c's features)

1/2 is a concept taken out wholly and alone. SHIFT. A probe for one label is
fitted where a second one always agrees with it; taking out k features of the
second one shall bring it to the accuracy of a probe fitted where both are
independent:

    SHIFT = (accuracy without them - accuracy) / (best accuracy - accuracy)

Beside dictionaries stand the vector's own numbers, principal components and
neurons. Source: Karvonen et al. 2024, "Evaluating Sparse Autoencoders on
Targeted Concept Erasure Tasks"; Marks et al. 2024, "Sparse Feature Circuits"
(SHIFT). Features are chosen by the probe on vectors, not by effects through the
rest of the model.
"""

from collections.abc import Sequence
import dataclasses
from typing import Any

from jaxtyping import Bool, Float, Int
import numpy as np

from gemma_scope.analysis import probe_fits
from gemma_scope.bootstrap import Interval
from gemma_scope.display import table_html
from gemma_scope.evals.dictionaries import by_size
from gemma_scope.evals.dictionaries.concepts import Labelled
from gemma_scope.evals.dictionaries.ratio import Ratio, mean_of
from gemma_scope.evals.dictionaries.representations import (
  L2,
  Features,
  LinearProbe,
  Represented,
)

SIZES = (1, 2, 5, 10, 20)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Targeted:
  """How well features take a concept out, and nothing else.

  Attributes:
    what: "TPP" or "SHIFT", and the texts.
    found: Representation -> k -> the number with its interval over texts.
  """

  what: str
  found: by_size.BySize

  def means(self) -> dict[str, dict[str, float]]:
    """Numbers without intervals, by the headings of the table."""
    return by_size.means(self.found)

  def table(self) -> tuple[list[str], list[list[str]]]:
    """Headings and a row for each representation."""
    return by_size.table(self.found)

  def to_dict(self) -> dict[str, Any]:
    """Numbers with intervals as JSON values."""
    return {"what": self.what, "found": by_size.to_dict(self.found)}

  def __repr__(self) -> str:
    lines = [", ".join(row) for row in self.table()[1]]
    return "\n".join([self.what, *lines])

  def _repr_html_(self) -> str:
    return table_html(*self.table(), title=self.what)


def targeted_perturbation(
  seen: Represented, *, sizes: Sequence[int] = SIZES
) -> Targeted:
  """TPP on some labelled texts.

  Args:
    seen: The texts, see `represent`.
    sizes: How many features are taken out.
  """
  found = {one.name: _tpp(one, seen, sizes) for one in seen.features}
  return Targeted(f"TPP of {seen.texts.name}", found)


def shift(
  seen: Represented, spurious: Labelled, *, sizes: Sequence[int] = SIZES
) -> Targeted:
  """SHIFT on texts with an intended and a spurious label, two classes each.

  Args:
    seen: The texts by what is intended (of `Crossed`), see `represent`.
    spurious: The same texts by what is not.
    sizes: How many features are taken out.
  """
  other = spurious.of(0)
  found = {one.name: _shift(one, seen, other, sizes) for one in seen.features}
  names = f"{seen.texts.name} without {spurious.name}"
  return Targeted(f"SHIFT to {names}", found)


def _tpp(
  one: Features, seen: Represented, sizes: Sequence[int]
) -> dict[int, Interval]:
  (fit, held), probes = seen.split, seen.probes(one)
  labels = np.stack(seen.labels, axis=1)
  count = labels.shape[1]
  directions = np.stack([w for w, _ in probes], axis=1)
  thresholds = np.array([threshold for _, threshold in probes])
  weights = np.stack([_balance(own, held) for own in seen.labels], axis=1)
  along = one.vectors @ directions
  before = (along > thresholds) == labels
  scores = {k: np.zeros(len(labels)) for k in sizes}
  for c in range(count):
    order = helpful(one, labels[:, c], directions[:, c], fit)
    part = np.full(count, -1 / (count * (count - 1)))
    part[c] = 1 / count
    for k, score in scores.items():
      chosen = order[:k]
      # What the probes say of `one.without(chosen)`.
      gone = one.values[:, chosen] @ (one.writes[chosen] @ directions)
      after = (along - gone > thresholds) == labels
      lost = before.astype(float) - after
      score += (lost * weights) @ part
  # A text's part is what probes lose on it, so that texts can be resampled.
  return {k: mean_of(score[held]).interval() for k, score in scores.items()}


def _shift(
  one: Features,
  seen: Represented,
  other: Bool[np.ndarray, " texts"],
  sizes: Sequence[int],
) -> dict[int, Interval]:
  (fit, held), meant = seen.split, seen.labels[0]
  biased = fit[meant[fit] == other[fit]]
  probe = _fit(one.vectors, meant, biased)
  best = seen.probes(one)[0]
  direction = _fit(one.vectors, other, fit)[0]
  order = helpful(one, other, direction, fit)
  base, bound = (_right(one.vectors, p, meant)[held] for p in (probe, best))
  found = {}
  for k in sizes:
    after = _right(one.without(order[:k]), probe, meant)[held]
    found[k] = Ratio(after - base, bound - base).interval()
  return found


def helpful(
  one: Features,
  labels: Bool[np.ndarray, " texts"],
  probe: Float[np.ndarray, " d"],
  fit: Int[np.ndarray, " fitted"],
) -> Int[np.ndarray, " features"]:
  """Features by how far they move vectors of a class along its probe."""
  own, rest = fit[labels[fit]], fit[~labels[fit]]
  gap = one.values[own].mean(axis=0) - one.values[rest].mean(axis=0)
  return np.argsort(-gap * (one.writes @ probe), kind="stable")


def _fit(x: np.ndarray, labels: np.ndarray, rows: np.ndarray) -> LinearProbe:
  return probe_fits.logistic(x[rows], labels[rows], L2)


def _right(
  x: np.ndarray, probe: LinearProbe, labels: np.ndarray
) -> Float[np.ndarray, " texts"]:
  return ((x @ probe[0] > probe[1]) == labels).astype(float)


def _balance(
  labels: Bool[np.ndarray, " texts"], held: Int[np.ndarray, " held"]
) -> Float[np.ndarray, " texts"]:
  """Weights with which both sides count half in a mean over held-out texts."""
  here = labels[held]
  own = len(here) / max(2 * here.sum(), 1)
  rest = len(here) / max(2 * (~here).sum(), 1)
  return np.where(labels, own, rest)
