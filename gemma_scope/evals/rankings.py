"""From token scores to the order in which tokens are taken away.

Most relevant first: the token that speaks most for the target goes first, so
signs count, and tokens that speak against it go last. Ties are broken by a
fixed draw and not by position, which would be a method of its own.
"""

import math

import numpy as np

from gemma_scope.errors import GemmaScopeError


def removal_ranks(
  scores: np.ndarray, candidates: np.ndarray, *, seed: int = 0
) -> np.ndarray:
  """The place of each token in the order, most relevant first.

  Args:
    scores: [prompts, width] relevance; only candidates count.
    candidates: [prompts, width] whether a token may be taken away.
    seed: Seed of the draw that breaks ties.

  Returns:
    [prompts, width] int: 0 for the most relevant; tokens that are no
    candidates come behind all others.

  Raises:
    GemmaScopeError: If the shapes differ or a score is not finite.
  """
  scores = checked_scores(scores, candidates)
  tie = np.random.default_rng(seed).random(scores.shape[1])
  ranks = np.empty(scores.shape, np.int64)
  places = np.arange(scores.shape[1])
  for p, (row, here) in enumerate(zip(scores, candidates)):
    order = np.lexsort((tie, -row, ~here))
    ranks[p, order] = places
  return ranks


def checked_scores(scores: np.ndarray, candidates: np.ndarray) -> np.ndarray:
  """Scores as float64, zero where there is no candidate.

  Raises:
    GemmaScopeError: If the shapes differ or a candidate's score is not finite.
  """
  scores = np.asarray(scores, np.float64)
  if scores.shape != candidates.shape:
    raise GemmaScopeError(
      "Scores must be given for each token of each prompt.",
      received=f"scores of shape {scores.shape}, tokens {candidates.shape}",
      instead="an array [prompts, seq], padding included",
    )
  if not np.isfinite(scores[candidates]).all():
    bad = np.argwhere(~np.isfinite(scores) & candidates)[0]
    raise GemmaScopeError(
      "A token's score is not a finite number.",
      received=f"{scores[tuple(bad)]} at prompt {bad[0]}, token {bad[1]}",
      instead="finite scores; check what the method returned",
    )
  return np.where(candidates, scores, 0.0)


def counts_at(fractions: np.ndarray, candidates: np.ndarray) -> np.ndarray:
  """[prompts, fractions] how many tokens each fraction of a prompt means."""
  n = candidates.sum(axis=1)
  return np.rint(n[:, None] * np.asarray(fractions)[None, :]).astype(int)


def counts_above(
  fractions: tuple[float, ...], candidates: np.ndarray
) -> np.ndarray:
  """[prompts, fractions] like `counts_at`, rounded up: at least one token."""
  exact = candidates.sum(axis=1)[:, None] * np.asarray(fractions)[None, :]
  return np.maximum(1, np.ceil(exact - 1e-9)).astype(int)


def without_top(ranks: np.ndarray, counts: np.ndarray) -> np.ndarray:
  """[prompts, counts, width] bool: kept if the top tokens go."""
  return ranks[:, None, :] >= counts[:, :, None]


def without_bottom(
  ranks: np.ndarray, counts: np.ndarray, candidates: np.ndarray
) -> np.ndarray:
  """[prompts, counts, width] bool: kept if the bottom tokens go."""
  left = candidates.sum(axis=1)[:, None] - counts
  kept = ranks[:, None, :] < left[:, :, None]
  return kept | ~candidates[:, None, :]


def only_top(
  ranks: np.ndarray, counts: np.ndarray, candidates: np.ndarray
) -> np.ndarray:
  """[prompts, counts, width] bool: kept if nothing but the top stays."""
  kept = ranks[:, None, :] < counts[:, :, None]
  return kept | ~candidates[:, None, :]


def grid(steps: int) -> np.ndarray:
  """[steps + 1] fractions from 0 to 1.

  Raises:
    GemmaScopeError: If there is no step.
  """
  if steps < 1 or steps != math.floor(steps):
    raise GemmaScopeError(
      "A curve needs at least one step.",
      received=f"steps={steps}",
      instead="a whole number, such as steps=10",
    )
  return np.linspace(0.0, 1.0, steps + 1)
