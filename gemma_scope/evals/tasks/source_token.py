"""Questions whose answer stands in the prompt, at a place that is known.

    Anna lives in Paris. Tom has a dog. Paul works as a pilot. Anna lives in
    -> Paris, and the source token is the " Paris" of the first sentence

The twin has another value (" Rome") in the source's place. A prompt is kept if
the model prefers the value that stands there in both: the source then causes
the answer, by intervention. A faithful attribution of the difference between
the two values should find it. It need not come first, since the names matter as
well: see its hit rate beside that of baselines.
"""

from collections.abc import Iterator
import dataclasses

import numpy as np

from gemma_scope.activations.tokens import TokenBatch
from gemma_scope.attribution.objectives import Target, logit_difference
from gemma_scope.errors import TextError
from gemma_scope.evals.tasks.protocol import Pair, make_task
from gemma_scope.model.language_model import LanguageModel

NAMES = "Anna Tom Paul Mary John Peter Sarah Emma James Laura David Alice"
RELATIONS = (
  ("{name} lives in", "Paris Rome Oslo London Madrid Berlin Vienna"),
  ("{name} likes the color", "red blue green yellow black white"),
  ("{name} has a", "dog cat horse bird car boat house"),
  ("{name} works as a", "doctor teacher pilot lawyer farmer nurse"),
)
FACTS = 3  # sentences before the question


@dataclasses.dataclass(frozen=True, repr=False)
class SourceTask:
  """Questions that the model answers, and where their answers stand.

  Attributes:
    texts: The prompts.
    tokens: Their tokens.
    answers: [prompts] id of the answer.
    others: [prompts] id of the value that the twin has in its place.
    sources: [prompts] column of the answer's source token.
    tried: How many prompts were put to the model.
  """

  texts: tuple[str, ...]
  tokens: TokenBatch
  answers: np.ndarray
  others: np.ndarray
  sources: np.ndarray
  tried: int

  @property
  def n(self) -> int:
    """Number of prompts."""
    return len(self.texts)

  @property
  def solved(self) -> float:
    """Share of those tried that the model answers right."""
    return self.n / self.tried

  @property
  def target(self) -> Target:
    """The logit of each prompt's answer minus that of the other value."""
    answers, others = self.answers.tolist(), self.others.tolist()
    return logit_difference(answers, others)

  def __repr__(self) -> str:
    return f"SourceTask(n={self.n}, solved={self.solved:.2f})"


@dataclasses.dataclass(frozen=True)
class SourceHits:
  """How well scores find the source, one number a prompt.

  Attributes:
    hit: Whether the source has the highest score.
    rank: Its place in the order of scores, 1 for the highest; ties in the
      middle.
    share: Its score's part of the sum of absolute scores.
  """

  hit: np.ndarray
  rank: np.ndarray
  share: np.ndarray


def source_token(lm: LanguageModel, n: int = 40, seed: int = 0) -> SourceTask:
  """Prompts whose answer follows what stands at the source.

  Args:
    lm: The model.
    n: How many are asked for; those in which the twin keeps the answer are left
      out of them.
    seed: Seed of names, values and order.

  Raises:
    TextError: If the model answers none.
  """
  task = make_task(lm, "source_token", _pairs(seed), n)
  follows = task.corrupt_value < 0
  if not follows.any():
    raise TextError(
      "No answer of the model follows its source.",
      received=f"{task.n} prompts of {lm.name}",
      instead="a larger model, or more prompts",
    )
  kept = task.take(np.flatnonzero(follows))
  return SourceTask(
    texts=tuple(pair.clean for pair in kept.pairs),
    tokens=kept.clean,
    answers=kept.right[:, 0],
    others=kept.wrong[:, 0],
    sources=kept.first_difference,
    tried=kept.tried,
  )


def source_hits(
  scores: np.ndarray, candidates: np.ndarray, sources: np.ndarray
) -> SourceHits:
  """How well token scores find the source.

  Args:
    scores: [prompts, seq] scores of one method.
    candidates: [prompts, seq] whether a token takes part.
    sources: [prompts] column of the source.
  """
  hit, rank, share = [], [], []
  for row, here, source in zip(scores, candidates, sources):
    own, all_scores = row[source], row[here]
    above = (all_scores > own).sum()
    ties = (all_scores == own).sum() - 1
    rank.append(1 + above + ties / 2)
    hit.append(float(above == 0) / (1 + ties))
    total = np.abs(all_scores).sum()
    share.append(own / total if total > 0 else 0.0)
  return SourceHits(np.asarray(hit), np.asarray(rank), np.asarray(share))


def _pairs(seed: int) -> Iterator[Pair]:
  """Endless prompts; every sentence is about another name and relation."""
  rng = np.random.default_rng(seed)
  while True:
    names = rng.choice(NAMES.split(), FACTS, replace=False)
    kinds = rng.choice(len(RELATIONS), FACTS, replace=False)
    starts, values = [], []
    for name, kind in zip(names, kinds):
      relation, every = RELATIONS[kind]
      starts.append(relation.format(name=name))
      values.append(str(rng.choice(every.split())))
    asked = int(rng.integers(FACTS))
    rest = [v for v in RELATIONS[kinds[asked]][1].split() if v != values[asked]]
    other = str(rng.choice(rest))
    twin = [other if i == asked else v for i, v in enumerate(values)]
    yield Pair(
      clean=f"{_sentences(starts, values)} {starts[asked]}",
      corrupt=f"{_sentences(starts, twin)} {starts[asked]}",
      right=(f" {values[asked]}",),
      wrong=(f" {other}",),
    )


def _sentences(starts: list[str], values: list[str]) -> str:
  return " ".join(f"{s} {v}." for s, v in zip(starts, values))
