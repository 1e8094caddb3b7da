"""Ranks, and correlations of ranks, of one row of numbers.

    rho = Pearson correlation of average ranks                    (Spearman)
    tau = (concordant - discordant) / sqrt(untied_a * untied_b)   (Kendall, b)

Ties share the mean of their ranks. A row without variation has no correlation:
NaN. Sources: Spearman 1904; Kendall 1945, "The treatment of ties in ranking
problems".
"""

import numpy as np


def average_ranks(values: np.ndarray) -> np.ndarray:
  """[n] ranks from 1, ties at their mean rank."""
  values = np.asarray(values, np.float64)
  _, inverse, counts = np.unique(
    values, return_inverse=True, return_counts=True
  )
  last = np.cumsum(counts)
  return (last - (counts - 1) / 2)[inverse]


def pearson(a: np.ndarray, b: np.ndarray) -> float:
  """Pearson correlation of two rows of n numbers; NaN without variation."""
  a = np.asarray(a, np.float64)
  b = np.asarray(b, np.float64)
  if a.size < 2:
    return float("nan")
  a, b = a - a.mean(), b - b.mean()
  scale = np.sqrt((a * a).sum() * (b * b).sum())
  return float((a * b).sum() / scale) if scale > 0 else float("nan")


def spearman(a: np.ndarray, b: np.ndarray) -> float:
  """Spearman correlation of two rows of n numbers; NaN without variation."""
  return pearson(average_ranks(a), average_ranks(b))


def kendall(a: np.ndarray, b: np.ndarray) -> float:
  """Kendall's tau-b of two rows of n numbers; NaN without variation.

  All pairs are compared: meant for the tokens of a prompt, not for thousands.
  """
  a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
  upper = np.triu_indices(len(a), 1)
  da = np.sign(a[:, None] - a[None, :])[upper]
  db = np.sign(b[:, None] - b[None, :])[upper]
  scale = np.sqrt((da != 0).sum() * (db != 0).sum())
  return float((da * db).sum() / scale) if scale > 0 else float("nan")


def top_k_overlap(a: np.ndarray, b: np.ndarray, k: int) -> float:
  """Share of the k highest entries that two rows have in common, 0 to 1.

  Ties at the border go to the earlier entry; k is cut to the row's length.
  """
  k = min(k, len(a))
  if k < 1:
    return float("nan")
  first = np.argsort(-np.asarray(a, np.float64), kind="stable")[:k]
  second = np.argsort(-np.asarray(b, np.float64), kind="stable")[:k]
  return len(np.intersect1d(first, second)) / k
