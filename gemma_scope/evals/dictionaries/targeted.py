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

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

from jaxtyping import Bool, Float, Int
import numpy as np

from gemma_scope.analysis import probe_fits
from gemma_scope.bootstrap import Interval
from gemma_scope.dictionaries.protocol import Dictionary
from gemma_scope.display import table_html
from gemma_scope.evals.dictionaries.concepts import Crossed, Labelled, Split
from gemma_scope.evals.dictionaries.ratio import Ratio, mean_of
from gemma_scope.evals.dictionaries.representations import Features, represent
from gemma_scope.evals.dictionaries.sparse_probing import L2
from gemma_scope.model.language_model import LanguageModel

SIZES = (1, 2, 5, 10, 20)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Targeted:
  """How well features take a concept out, and nothing else.

  Attributes:
    what: "TPP" or "SHIFT", and the texts.
    found: Representation -> k -> the number with its interval over texts.
  """

  what: str
  found: Mapping[str, Mapping[int, Interval]]

  def table(self) -> tuple[list[str], list[list[str]]]:
    """Headings and a row for each representation."""
    sizes = list(next(iter(self.found.values())))
    rows = [[n, *map(str, by_k.values())] for n, by_k in self.found.items()]
    return ["representation", *(f"k = {k}" for k in sizes)], rows

  def to_dict(self) -> dict[str, Any]:
    """Numbers with intervals as JSON values."""
    return {
      "what": self.what,
      "found": {
        name: {str(k): value.to_dict() for k, value in by_k.items()}
        for name, by_k in self.found.items()
      },
    }

  def __repr__(self) -> str:
    lines = [", ".join(row) for row in self.table()[1]]
    return "\n".join([self.what, *lines])

  def _repr_html_(self) -> str:
    return table_html(*self.table(), title=self.what)


def targeted_perturbation(
  lm: LanguageModel,
  dictionaries: Mapping[str, Dictionary],
  texts: Labelled,
  *,
  sizes: Sequence[int] = SIZES,
  seed: int = 0,
) -> Targeted:
  """TPP on some labelled texts.

  Args:
    lm: The model.
    dictionaries: SAEs of one site, by name.
    texts: Labelled texts.
    sizes: How many features are taken out.
    seed: Of the split.

  Raises:
    ConfigError: The dictionaries are no SAEs of one site.
    TextError: A class has too few texts.
  """
  fit, held = texts.split(seed=seed)
  found = {
    one.name: _tpp(one, texts, (fit, held), sizes)
    for one in represent(lm, dictionaries, texts, fit)
  }
  return Targeted(f"TPP of {texts.name}", found)


def shift(
  lm: LanguageModel,
  dictionaries: Mapping[str, Dictionary],
  texts: Crossed,
  *,
  sizes: Sequence[int] = SIZES,
  seed: int = 0,
) -> Targeted:
  """SHIFT on texts with an intended and a spurious label, two classes each.

  Args:
    lm: The model.
    dictionaries: SAEs of one site, by name.
    texts: The texts.
    sizes: How many features are taken out.
    seed: Of the split.

  Raises:
    ConfigError: The dictionaries are no SAEs of one site.
    TextError: A class has too few texts.
  """
  fit, held = texts.intended.split(seed=seed)
  meant, other = texts.intended.of(0), texts.spurious.of(0)
  found = {
    one.name: _shift(one, (meant, other), (fit, held), sizes)
    for one in represent(lm, dictionaries, texts.intended, fit)
  }
  names = f"{texts.intended.name} without {texts.spurious.name}"
  return Targeted(f"SHIFT to {names}", found)


def _tpp(
  one: Features, texts: Labelled, split: Split, sizes: Sequence[int]
) -> dict[int, Interval]:
  fit, held = split
  count = len(texts.classes)
  labels = [texts.of(c) for c in range(count)]
  probes = [_fit(one.vectors, own, fit) for own in labels]
  before = [_right(one.vectors, p, own) for p, own in zip(probes, labels)]
  weights = [_balance(own, held) for own in labels]
  scores = {k: np.zeros(len(texts.labels)) for k in sizes}
  for c in range(count):
    order = helpful(one, labels[c], probes[c][0], fit)
    for k, score in scores.items():
      without = one.without(order[:k])
      for d in range(count):
        lost = before[d] - _right(without, probes[d], labels[d])
        part = 1 / count if c == d else -1 / (count * (count - 1))
        score += part * lost * weights[d]
  # A text's part is what probes lose on it, so that texts can be resampled.
  return {k: mean_of(score[held]).interval() for k, score in scores.items()}


def _shift(
  one: Features,
  labels: tuple[Bool[np.ndarray, " texts"], Bool[np.ndarray, " texts"]],
  split: Split,
  sizes: Sequence[int],
) -> dict[int, Interval]:
  (meant, other), (fit, held) = labels, split
  biased = fit[meant[fit] == other[fit]]
  probe = _fit(one.vectors, meant, biased)
  best = _fit(one.vectors, meant, fit)
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


def _fit(
  x: np.ndarray, labels: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, float]:
  return probe_fits.logistic(x[rows], labels[rows], L2)


def _right(
  x: np.ndarray, probe: tuple[np.ndarray, float], labels: np.ndarray
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
