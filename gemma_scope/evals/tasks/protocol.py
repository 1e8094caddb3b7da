"""What every task is: pairs of prompts, right and wrong tokens.

A clean prompt has an answer; its corrupt twin has the same number of tokens and
differs in what the answer hangs on. The target is the logit of the right tokens
minus that of the wrong ones, both named for the *clean* prompt. Prompts that
the model gets wrong are left out, since there is nothing to explain: how many
is part of the result.
"""

from collections.abc import Callable, Iterator
import dataclasses
import itertools

import jax
import numpy as np

from gemma_scope.activations.tokens import TokenBatch, to_tokens
from gemma_scope.attribution.evaluate import ask, evaluate
from gemma_scope.attribution.objectives import (
  ResolvedTarget,
  Target,
  weighted_logits,
)
from gemma_scope.attribution.rows import Rows
from gemma_scope.display import table_html
from gemma_scope.errors import TextError
from gemma_scope.model import gemma
from gemma_scope.model.language_model import LanguageModel

ATTEMPTS = 20  # pairs put to the model for each pair wanted, at most
LOOKED_AT = 5_000  # candidates, whether they fit the tokenizer or not
CHECKED_AT_ONCE = 16  # prompts that are run side by side


@dataclasses.dataclass(frozen=True)
class Pair:
  """One pair of prompts as text.

  Attributes:
    clean: The prompt that has the answer.
    corrupt: Its twin.
    right: Texts of the right next tokens of `clean`.
    wrong: Texts of wrong ones, as many as of right ones.
  """

  clean: str
  corrupt: str
  right: tuple[str, ...]
  wrong: tuple[str, ...]


@dataclasses.dataclass(frozen=True, repr=False)
class Task:
  """Pairs of prompts that the model solves.

  Attributes:
    name: The task's name.
    pairs: The pairs as text.
    clean: Tokens of the clean prompts.
    corrupt: Tokens of the corrupt ones, row by row of the same lengths.
    right: [prompts, tokens] ids of the right tokens.
    wrong: [prompts, tokens] ids of the wrong ones.
    clean_value: [prompts] the target on the clean prompts, in logits.
    corrupt_value: [prompts] the target on the corrupt ones.
    tried: How many pairs were put to the model.
  """

  name: str
  pairs: tuple[Pair, ...]
  clean: TokenBatch
  corrupt: TokenBatch
  right: np.ndarray
  wrong: np.ndarray
  clean_value: np.ndarray
  corrupt_value: np.ndarray
  tried: int

  @property
  def n(self) -> int:
    """Number of pairs."""
    return len(self.pairs)

  @property
  def solved(self) -> float:
    """Share of the pairs tried in which the model prefers the right answer."""
    return self.n / self.tried

  @property
  def target(self) -> Target:
    """Mean logit of the right tokens minus that of the wrong ones."""
    return _target(self.right, self.wrong)

  @property
  def first_difference(self) -> np.ndarray:
    """[prompts] the first column in which clean and corrupt differ.

    Whatever comes before it is equal in both runs.
    """
    return (self.clean.ids != self.corrupt.ids).argmax(axis=1)

  def take(self, rows: np.ndarray | slice) -> "Task":
    """Some of the pairs."""
    index = np.arange(self.n)[rows]
    return dataclasses.replace(
      self,
      pairs=tuple(self.pairs[i] for i in index),
      clean=_rows(self.clean, index),
      corrupt=_rows(self.corrupt, index),
      right=self.right[index],
      wrong=self.wrong[index],
      clean_value=self.clean_value[index],
      corrupt_value=self.corrupt_value[index],
    )

  def __repr__(self) -> str:
    return f"Task({self.name!r}, n={self.n}, solved={self.solved:.2f})"

  def _repr_html_(self) -> str:
    rows = [
      (pair.clean, pair.corrupt, "".join(pair.right), float(value))
      for pair, value in zip(self.pairs[:10], self.clean_value)
    ]
    title = f"{self.name}: {self.n} pairs, {self.solved:.0%} of those tried"
    head = ["clean", "corrupt", "right", "logit difference"]
    return table_html(head, rows, title=title)


def make_task(
  lm: LanguageModel, name: str, pairs: Iterator[Pair], n: int
) -> Task:
  """Takes pairs until `n` are solved by the model.

  Pairs whose prompts differ in their number of tokens, or whose answers are not
  single tokens, do not fit the tokenizer and do not count as tried.

  Args:
    lm: The model.
    name: The task's name.
    pairs: Candidates, in random order; it may end.
    n: How many pairs are wanted; fewer come back if `pairs` ends before, or if
      there are not enough among the first `LOOKED_AT`.

  Raises:
    TextError: If not one pair fits the tokenizer and is solved.
  """
  candidates = itertools.islice(pairs, LOOKED_AT)
  fitting = (pair for pair in candidates if fits(lm, pair))
  kept: list[tuple[Pair, float, float]] = []
  tried = 0
  while len(kept) < n and tried < ATTEMPTS * n:
    some = list(itertools.islice(fitting, CHECKED_AT_ONCE))
    if not some:
      break
    clean = _values(lm, some, lambda pair: pair.clean)
    corrupt = _values(lm, some, lambda pair: pair.corrupt)
    for pair, value, other in zip(some, clean, corrupt):
      if len(kept) == n:
        break  # what was not needed does not count as tried
      tried += 1
      if value > 0:
        kept.append((pair, float(value), float(other)))
  if not kept:
    raise TextError(
      f"The model solves no prompt of the task {name}.",
      received=f"{tried} pairs that fit the tokenizer of {lm.name}",
      instead="a larger model, or another task",
    )
  return _task(lm, name, kept, tried)


def fits(lm: LanguageModel, pair: Pair) -> bool:
  """Whether both prompts are as long, and every answer is one token."""
  encode = lm.tokenizer.encode
  answers = (*pair.right, *pair.wrong)
  single = all(len(encode(answer, bos=False)) == 1 for answer in answers)
  return single and len(encode(pair.clean)) == len(encode(pair.corrupt))


def _task(
  lm: LanguageModel,
  name: str,
  kept: list[tuple[Pair, float, float]],
  tried: int,
) -> Task:
  pairs = tuple(pair for pair, _, _ in kept)
  return Task(
    name=name,
    pairs=pairs,
    clean=to_tokens(lm, [pair.clean for pair in pairs]),
    corrupt=to_tokens(lm, [pair.corrupt for pair in pairs]),
    right=_ids(lm, [pair.right for pair in pairs]),
    wrong=_ids(lm, [pair.wrong for pair in pairs]),
    clean_value=np.asarray([value for _, value, _ in kept]),
    corrupt_value=np.asarray([value for _, _, value in kept]),
    tried=tried,
  )


def _values(
  lm: LanguageModel, pairs: list[Pair], text: Callable[[Pair], str]
) -> np.ndarray:
  """[pairs] the target on one prompt of each pair."""
  filled = pairs + pairs[:1] * (CHECKED_AT_ONCE - len(pairs))
  right = _ids(lm, [pair.right for pair in filled])
  wrong = _ids(lm, [pair.wrong for pair in filled])
  texts = [text(pair) for pair in filled]
  _, rows, target = ask(lm, texts, _target(right, wrong))
  return np.asarray(_value(lm.model, rows, target))[: len(pairs)]


@jax.jit
def _value(model: gemma.Gemma, rows: Rows, target: ResolvedTarget) -> jax.Array:
  """The target of each row."""
  return evaluate(model, rows, target, {})[0]


def _target(right: np.ndarray, wrong: np.ndarray) -> Target:
  columns = [
    tuple(int(token) for token in column) for column in (*right.T, *wrong.T)
  ]
  share = 1 / right.shape[1]
  weights = [share] * right.shape[1] + [-share] * wrong.shape[1]
  return weighted_logits(columns, weights)


def _ids(lm: LanguageModel, answers: list[tuple[str, ...]]) -> np.ndarray:
  return np.asarray(
    [[lm.tokenizer.token_id(token) for token in row] for row in answers]
  )


def _rows(batch: TokenBatch, index: np.ndarray) -> TokenBatch:
  """Some rows, cut to the longest of them."""
  width = int(batch.lengths[index].max())
  return TokenBatch(
    batch.ids[index, :width], batch.segment_ids[index, :width], batch.exact
  )
