"""Token scores of attribution methods, and what they cost.

Scores are relevance at `embed`, summed over the embedding. Costs are measured
on the same prompts, in the same chunks and in the same run as one plain forward
pass, whose time is the unit: a method of 3.0 forwards took as long as three.
Compilation is left out by running the first chunk twice.
"""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import time
from typing import Any

import jax
import numpy as np

from gemma_scope.attribution.attribute import attribute
from gemma_scope.attribution.evaluate import evaluate
from gemma_scope.attribution.objectives import ResolvedTarget
from gemma_scope.attribution.rows import Rows, to_rows
from gemma_scope.evals.groups import Group
from gemma_scope.model import gemma
from gemma_scope.model.language_model import LanguageModel

CHUNK_TOKENS = 256  # tokens of the prompts that are attributed side by side


@dataclasses.dataclass(frozen=True)
class Cost:
  """What the scores of one prompt cost.

  Attributes:
    seconds: Wall time, compilation left out.
    forwards: The same in units of one forward pass of the prompt.
  """

  seconds: float
  forwards: float


@dataclasses.dataclass(frozen=True)
class Scored:
  """Scores of one method for the prompts of each group.

  Attributes:
    rows: For each group [prompts, width].
    cost: Of one prompt, the mean over all prompts.
  """

  rows: tuple[np.ndarray, ...]
  cost: Cost


def method_scores(
  lm: LanguageModel,
  groups: Sequence[Group],
  method: str,
  *,
  options: Any | None = None,
  forward_seconds: Sequence[float] | None = None,
) -> Scored:
  """Scores of every token under one method.

  Args:
    lm: The model.
    groups: The prompts.
    method: A key of `attribution.attribute.METHODS`.
    options: Options of the method.
    forward_seconds: For each group the time of one forward pass a prompt (see
      `forward_times`); measured here if not given.
  """
  if forward_seconds is None:
    forward_seconds = forward_times(lm, groups)
  one = _scorer(lm, method, options)
  rows, seconds, forwards, total = [], 0.0, 0.0, 0
  for group, unit in zip(groups, forward_seconds):
    scores, spent = _timed(group, one)
    rows.append(scores)
    seconds += spent * group.size
    forwards += spent / unit * group.size
    total += group.size
  return Scored(tuple(rows), Cost(seconds / total, forwards / total))


def token_scores(
  lm: LanguageModel, group: Group, method: str, options: Any | None = None
) -> np.ndarray:
  """Scores of every token under one method, [prompts, width], not timed.

  Args:
    lm: The model.
    group: The prompts.
    method: A key of `attribution.attribute.METHODS`.
    options: Options of the method.
  """
  one = _scorer(lm, method, options)
  return np.concatenate(
    [one(group.take(rows))[:size] for rows, size in _chunks(group)]
  )


def _scorer(
  lm: LanguageModel, method: str, options: Any | None
) -> Callable[[Group], np.ndarray]:
  """From some prompts to the scores of their tokens."""

  def one(part: Group) -> np.ndarray:
    batch, target = part.asked()
    found = attribute(lm, batch, target, method=method, options=options)
    return np.asarray(found.per_token("embed").data_array)

  return one


def forward_times(
  lm: LanguageModel, groups: Sequence[Group]
) -> tuple[float, ...]:
  """Seconds of one forward pass to the target, a prompt, for each group."""

  def one(part: Group) -> np.ndarray:
    batch, target = part.asked()
    rows = to_rows(batch, target.position)
    return np.asarray(_plain(lm.model, rows, target.resolved))[:, None]

  return tuple(_timed(group, one)[1] for group in groups)


@jax.jit
def _plain(model: gemma.Gemma, rows: Rows, target: ResolvedTarget) -> jax.Array:
  """The target's value of each row."""
  return evaluate(model, rows, target, {})[0]


def _timed(
  group: Group, run: Callable[[Group], np.ndarray]
) -> tuple[np.ndarray, float]:
  """Runs a group in equal chunks; results, and seconds a prompt."""
  parts, seconds = [], 0.0
  for i, (rows, size) in enumerate(_chunks(group)):
    part = group.take(rows)
    if i == 0:
      run(part)  # compiles
    start = time.perf_counter()
    found = run(part)
    seconds += time.perf_counter() - start
    parts.append(found[:size])
  computed = len(parts) * at_once(group)
  return np.concatenate(parts), seconds / computed


def _chunks(group: Group) -> Iterator[tuple[np.ndarray, int]]:
  """Rows of each chunk, filled up to one size, and how many of them count."""
  size = at_once(group)
  for start in range(0, group.size, size):
    rows = np.arange(start, start + size)
    there = rows < group.size
    yield np.where(there, rows, start), int(there.sum())


def at_once(group: Group) -> int:
  """How many prompts of a group are attributed side by side."""
  return max(1, min(group.size, CHUNK_TOKENS // group.width))
