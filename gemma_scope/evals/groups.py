"""Prompts of like length together, as arrays, with what may be perturbed.

Prompts are sorted into widths that are multiples of `STEP`, so that a few
compiled programs serve any set of prompts and little padding is computed.
"""

from collections.abc import Callable
import dataclasses

import jax.numpy as jnp
import numpy as np

from gemma_scope.activations.tokens import Input, TokenBatch
from gemma_scope.attribution.evaluate import ask
from gemma_scope.attribution.objectives import ResolvedTarget, Target
from gemma_scope.errors import TextError
from gemma_scope.model.language_model import LanguageModel

STEP = 8  # widths are multiples of this


@dataclasses.dataclass(frozen=True)
class FixedTarget(Target):
  """A target that is arrays already, so that it can be cut by prompt.

  Attributes:
    resolved: The arrays.
  """

  resolved: ResolvedTarget

  def resolve(self, lm: LanguageModel) -> ResolvedTarget:
    """The arrays as they are."""
    del lm
    return self.resolved


@dataclasses.dataclass(frozen=True)
class Group:
  """Some prompts of one width.

  Attributes:
    index: [prompts] their places among all prompts.
    ids: [prompts, width] token ids, padding 0 on the right.
    segment_ids: [prompts, width] 1 for tokens, 0 for padding.
    columns: [prompts] the target's column.
    target: What is explained.
    candidates: [prompts, width] whether a token may be perturbed: every token
      up to the target's column, BOS left out.
  """

  index: np.ndarray
  ids: np.ndarray
  segment_ids: np.ndarray
  columns: np.ndarray
  target: ResolvedTarget
  candidates: np.ndarray

  @property
  def size(self) -> int:
    """Number of prompts."""
    return len(self.index)

  @property
  def width(self) -> int:
    """Columns of every prompt, padding included."""
    return self.ids.shape[1]

  def take(self, rows: np.ndarray) -> "Group":
    """Some of the prompts, in any order, also repeated."""
    rows = np.asarray(rows)
    return Group(
      self.index[rows],
      self.ids[rows],
      self.segment_ids[rows],
      self.columns[rows],
      self.target.take(jnp.asarray(rows)),
      self.candidates[rows],
    )

  def asked(self) -> tuple[TokenBatch, FixedTarget]:
    """The prompts and their target as `attribute` takes them."""
    columns = tuple(int(c) for c in self.columns)
    batch = TokenBatch(self.ids, self.segment_ids, exact=True)
    return batch, FixedTarget(self.target, position=columns)


def to_groups(
  lm: LanguageModel, prompts: Input, target: Target
) -> tuple[TokenBatch, tuple[Group, ...]]:
  """Sorts prompts by width.

  Args:
    lm: The model.
    prompts: Text, texts or token ids.
    target: What is explained; it may hold one token for each prompt.

  Returns:
    The prompts as given, and their groups, narrow ones first.

  Raises:
    TextError: If prompts and target do not fit, or a prompt has fewer than two
      tokens that may be perturbed.
  """
  batch, rows, resolved = ask(lm, prompts, target)
  columns = np.asarray(rows.columns)
  candidates = to_candidates(batch, columns, lm.tokenizer.bos_id)
  few = np.flatnonzero(candidates.sum(axis=1) < 2)
  if few.size:
    raise TextError(
      "A prompt is too short to rank its tokens.",
      received=f"prompt {few[0]}: {batch.ids[few[0]].tolist()}",
      instead="at least two tokens besides BOS, up to the target's position",
    )
  widths = -(-batch.lengths // STEP) * STEP
  full = Group(
    np.arange(len(columns)),
    batch.ids,
    batch.segment_ids,
    columns,
    resolved,
    candidates,
  )
  return batch, tuple(
    _of_width(full.take(np.flatnonzero(widths == width)), int(width))
    for width in np.unique(widths)
  )


def to_candidates(
  batch: TokenBatch, columns: np.ndarray, bos_id: int
) -> np.ndarray:
  """[prompts, seq] whether each token may be perturbed (see `Group`)."""
  before = np.arange(batch.width)[None, :] <= columns[:, None]
  return (batch.segment_ids != 0) & (batch.ids != bos_id) & before


def merge(
  groups: tuple[Group, ...],
  values: Callable[[int], np.ndarray],
  width: int,
) -> np.ndarray:
  """[prompts, width] rows of all groups in the order of the prompts.

  Args:
    groups: The groups.
    values: From a group's place to its rows [prompts, group's width].
    width: Columns of the result; the rest is zero.
  """
  total = sum(group.size for group in groups)
  merged = np.zeros((total, width), np.float64)
  for i, group in enumerate(groups):
    found = np.asarray(values(i))[:, :width]
    merged[group.index, : found.shape[1]] = found
  return merged


def _of_width(group: Group, width: int) -> Group:
  """The group cut or padded to `width` columns."""

  def fit(rows: np.ndarray) -> np.ndarray:
    rows = rows[:, :width]
    return np.pad(rows, ((0, 0), (0, width - rows.shape[1])))

  return dataclasses.replace(
    group,
    ids=fit(group.ids),
    segment_ids=fit(group.segment_ids),
    candidates=fit(group.candidates),
  )
