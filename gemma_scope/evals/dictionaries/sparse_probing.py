"""Sparse probes: is a concept in few features?

    choose the k features with the largest |mean+ - mean-| / deviation,
    fit a logistic probe to them, judge it on texts that are held out

for k = 1, 2, 5, 10, one class against the others, both equally many. Beside
dictionaries stand the vector's own numbers, principal components and neurons of
the same layer, and a probe of the whole vector, which is the most a linear
probe can do.

Source: Gurnee et al. 2023, "Finding Neurons in a Haystack", section 4 (choice
by difference of means). Deviations are divided out here, for a residual stream
has dimensions a thousand times larger than others.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
from typing import Any

from jaxtyping import Bool, Float, Int
import numpy as np

from gemma_scope.analysis import probe_fits
from gemma_scope.bootstrap import Interval
from gemma_scope.display import table_html
from gemma_scope.errors import ConfigError
from gemma_scope.evals.dictionaries import by_size
from gemma_scope.evals.dictionaries.ratio import mean_of
from gemma_scope.evals.dictionaries.representations import L2, Represented

SIZES = (1, 2, 5, 10)
WHOLE = "whole vector"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class SparseProbes:
  """How well concepts are read off few features.

  Attributes:
    texts: Name of the set of texts.
    classes: What was told apart from the rest.
    right: Representation -> k -> whether each held-out text of each class's
      task was classified right; the whole vector has one k, its width.
    chosen: Representation -> class -> the features, best first.
  """

  texts: str
  classes: tuple[str, ...]
  right: Mapping[str, Mapping[int, Bool[np.ndarray, " tests"]]]
  chosen: Mapping[str, Mapping[str, tuple[int, ...]]]

  def accuracy(self, name: str, k: int | None = None) -> Interval:
    """Mean accuracy over classes and texts, with its 95 % interval.

    Args:
      name: A representation.
      k: How many features; the only number there is by default.

    Raises:
      ConfigError: There is no such probe.
    """
    return mean_of(self._of(name, k)).interval()

  def difference(self, a: str, b: str, k: int) -> Interval:
    """Accuracy of `a` minus that of `b`, paired by text."""
    return mean_of(self._of(a, k)).minus(mean_of(self._of(b, k)))

  @functools.cached_property
  def accuracies(self) -> by_size.BySize:
    """Representation -> k -> mean accuracy with its interval."""
    return {
      name: {k: mean_of(hits).interval() for k, hits in by_k.items()}
      for name, by_k in self.right.items()
    }

  def means(self) -> dict[str, dict[str, float]]:
    """Accuracies without intervals, by the headings of the table."""
    return by_size.means(self.accuracies)

  def table(self) -> tuple[list[str], list[list[str]]]:
    """Headings and a row for each representation."""
    return by_size.table(self.accuracies)

  def to_dict(self) -> dict[str, Any]:
    """Accuracies with intervals and the chosen features, as JSON values."""
    return {
      "texts": self.texts,
      "classes": list(self.classes),
      "accuracy": by_size.to_dict(self.accuracies),
      "chosen": {
        name: {c: list(features) for c, features in by_class.items()}
        for name, by_class in self.chosen.items()
      },
    }

  def __repr__(self) -> str:
    lines = [", ".join(row) for row in self.table()[1]]
    return "\n".join([f"Sparse probes of {self.texts}", *lines])

  def _repr_html_(self) -> str:
    return table_html(*self.table(), title=f"Sparse probes of {self.texts}")

  def _of(self, name: str, k: int | None) -> np.ndarray:
    by_k = self.right.get(name, {})
    if k is None and len(by_k) == 1:
      (k,) = by_k
    if k is None or k not in by_k:
      raise ConfigError(
        "There is no such probe.",
        received=f"k={k} of {name}",
        instead=f"k of {sorted(by_k)}; one of {', '.join(self.right)}",
      )
    return by_k[k]


def sparse_probes(
  seen: Represented, *, sizes: Sequence[int] = SIZES
) -> SparseProbes:
  """Fits and judges sparse probes of every class of some texts.

  Args:
    seen: The texts, see `represent`.
    sizes: Numbers of features, rising.
  """
  classes = seen.texts.classes
  tasks = [_task(seen, c) for c in range(len(classes))]
  right: dict[str, dict[int, np.ndarray]] = {}
  chosen: dict[str, dict[str, tuple[int, ...]]] = {}
  for one in seen.features:
    each = [_of_class(one.values, task, sizes) for task in tasks]
    right[one.name] = {
      k: np.concatenate([hits[k] for hits, _ in each]) for k in sizes
    }
    best = [tuple(int(i) for i in order[: max(sizes)]) for _, order in each]
    chosen[one.name] = dict(zip(classes, best))
  x = seen.features[0].vectors
  hits = [probe_hits(x, task) for task in tasks]
  right[WHOLE] = {x.shape[1]: np.concatenate(hits)}
  return SparseProbes(seen.texts.name, classes, right, chosen)


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
  """One class against the others, both equally many.

  Attributes:
    fit: Texts to fit.
    held: Texts held out.
    labels: Of every text: whether it is of the class.
  """

  fit: Int[np.ndarray, " fitted"]
  held: Int[np.ndarray, " held"]
  labels: Bool[np.ndarray, " texts"]


def probe_hits(
  x: Float[np.ndarray, "texts features"], task: Task
) -> Bool[np.ndarray, " held"]:
  """Whether a logistic probe classifies each held-out text right."""
  labels = task.labels
  w, threshold = probe_fits.logistic(x[task.fit], labels[task.fit], L2)
  return (x[task.held] @ w > threshold) == labels[task.held]


def rank(
  values: Float[np.ndarray, "texts features"],
  labels: Bool[np.ndarray, " texts"],
) -> Int[np.ndarray, " features"]:
  """Features by how far apart the two means are, in deviations."""
  return np.argsort(-np.abs(gaps(values, labels)), kind="stable")


def gaps(
  values: Float[np.ndarray, "texts features"],
  labels: Bool[np.ndarray, " texts"],
) -> Float[np.ndarray, " features"]:
  """Mean over the class less mean over the rest, in deviations."""
  gap = values[labels].mean(axis=0) - values[~labels].mean(axis=0)
  deviation = values.std(axis=0)
  return np.where(
    deviation > 0, gap / np.where(deviation > 0, deviation, 1.0), 0.0
  )


def _of_class(
  values: np.ndarray, task: Task, sizes: Sequence[int]
) -> tuple[dict[int, np.ndarray], np.ndarray]:
  order = rank(values[task.fit], task.labels[task.fit])
  return {k: probe_hits(values[:, order[:k]], task) for k in sizes}, order


def _task(seen: Represented, index: int) -> Task:
  labels = seen.labels[index]
  rng = np.random.default_rng([seen.seed, index])
  fit, held = (_balanced(labels, part, rng) for part in seen.split)
  return Task(fit, held, labels)


def _balanced(
  labels: np.ndarray, rows: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
  """As many rows of the other classes as of this one, or the reverse."""
  own, other = rows[labels[rows]], rows[~labels[rows]]
  count = min(len(own), len(other))
  return np.concatenate([rng.permutation(a)[:count] for a in (own, other)])
