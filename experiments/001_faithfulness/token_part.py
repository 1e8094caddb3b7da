"""Part (a): which tokens, judged by what the model does without them."""

from collections.abc import Callable, Iterator
import dataclasses

import numpy as np
from parts import Parts
from settings import METHOD_OPTIONS, Settings
from texts import TEXTS

import gemma_scope as gs
from gemma_scope.activations.tokens import to_tokens
from gemma_scope.attribution import Target, log_prob, logit_difference
from gemma_scope.evals import (
  Curves,
  FaithfulnessOptions,
  Perturbation,
  Rationale,
  Soft,
  faithfulness,
  tasks,
)
from gemma_scope.evals.groups import merge, to_groups
from gemma_scope.evals.randomisation import randomisation_check
from gemma_scope.evals.scores import token_scores

WINDOW = 20  # tokens of natural text before the one that is explained
STRIDE = 10


@dataclasses.dataclass(frozen=True)
class PromptSet:
  """Prompts with a target each.

  Attributes:
    name: What the set is called.
    ids: The tokens of every prompt.
    target: From the places of some prompts to their target.
    note: How the prompts were chosen, with the rates.
    sources: Column of each answer's source token, where it is known.
  """

  name: str
  ids: list[list[int]]
  target: Callable[[np.ndarray], Target]
  note: str
  sources: np.ndarray | None = None

  def chunks(self, size: int) -> Iterator[tuple[int, np.ndarray]]:
    """Places of prompts of like length, some at a time."""
    order = np.argsort([len(row) for row in self.ids], kind="stable")
    for i, start in enumerate(range(0, len(order), size)):
      yield i, order[start : start + size]


def natural_text(lm: gs.LanguageModel, n: int, seed: int = 0) -> PromptSet:
  """Windows of natural text and the token that follows each.

  Windows whose next token the model predicts come first, in random order:
  elsewhere there is little to explain.
  """
  bos, rows, after = lm.tokenizer.bos_id, [], []
  for text in TEXTS:
    tokens = lm.tokenizer.encode(text, bos=False)
    for start in range(0, len(tokens) - WINDOW, STRIDE):
      rows.append([bos, *tokens[start : start + WINDOW]])
      after.append(tokens[start + WINDOW])
  right = np.concatenate(
    [_predicted(lm, rows[i : i + 16]) for i in range(0, len(rows), 16)]
  ) == np.asarray(after)
  order = np.random.default_rng(seed).permutation(len(rows))
  chosen = order[np.argsort(~right[order], kind="stable")][:n]
  follows = np.asarray(after)[chosen]
  return PromptSet(
    "natural",
    [rows[i] for i in chosen],
    lambda some: log_prob(follows[some].tolist()),
    f"{len(chosen)} of {len(rows)} windows of {WINDOW} tokens; the model's "
    f"first choice is right in {right.mean():.0%} of all and "
    f"{right[chosen].mean():.0%} of these; target: log-probability of the true "
    "next token",
  )


def _predicted(lm: gs.LanguageModel, rows: list[list[int]]) -> np.ndarray:
  """The most probable token after each of some rows of equal length."""
  logits = gs.capture(lm, np.asarray(rows), ["logits"], logits_at=-1)["logits"]
  return np.asarray(logits.data_array)[:, 0].argmax(axis=-1)


def questions(lm: gs.LanguageModel, n: int) -> PromptSet:
  """Questions whose answer's source token is known."""
  task = tasks.source_token(lm, n)
  rows = [
    row[:length].tolist()
    for row, length in zip(task.tokens.ids, task.tokens.lengths)
  ]
  return PromptSet(
    "source",
    rows,
    lambda some: logit_difference(
      task.answers[some].tolist(), task.others[some].tolist()
    ),
    f"{task.n} prompts, {task.solved:.0%} of those tried; target: logit of the "
    "answer minus that of the value that stands there in the twin",
    task.sources,
  )


def contrasts(lm: gs.LanguageModel, n: int) -> PromptSet:
  """Prompts of IOI: two names, of which one is the answer."""
  task = tasks.ioi(lm, n)
  rows = [
    row[:length].tolist()
    for row, length in zip(task.clean.ids, task.clean.lengths)
  ]
  return PromptSet(
    "ioi",
    rows,
    lambda some: task.take(some).target,
    f"{task.n} prompts, {task.solved:.0%} of those tried; target: logit of the "
    "indirect object minus that of the subject",
  )


def run_set(
  lm: gs.LanguageModel, prompts: PromptSet, settings: Settings, store: Parts
) -> None:
  """All scores and all metrics of one set, chunk by chunk."""
  store.get(f"about_{prompts.name}", lambda: {"note": prompts.note})
  for i, some in prompts.chunks(settings.chunk):
    name = f"tokens/{prompts.name}/{i:03d}"
    found = store.get(
      f"{name}_scores", lambda some=some: _scores(lm, prompts, some, settings)
    )
    scores = {m: np.asarray(v) for m, v in found["scores"].items()}
    for kind in settings.perturbations:
      store.get(
        f"{name}_{kind}",
        lambda some=some, i=i, kind=kind, scores=scores: _judged(
          lm, prompts, some, settings, scores, (kind, i)
        ),
      )


def _scores(
  lm: gs.LanguageModel,
  prompts: PromptSet,
  some: np.ndarray,
  settings: Settings,
) -> dict[str, object]:
  """Scores of every method for some prompts."""
  given = [prompts.ids[i] for i in some]
  batch, groups = to_groups(lm, given, prompts.target(some))
  scores = {}
  for method in settings.methods:
    options = METHOD_OPTIONS.get(method)
    rows = [token_scores(lm, group, method, options) for group in groups]
    scores[method] = merge(groups, rows.__getitem__, batch.width)
  here = merge(groups, lambda i: groups[i].candidates, batch.width) > 0
  return {
    "prompts": some,
    "scores": scores,
    "candidates": here,
    "sources": None if prompts.sources is None else prompts.sources[some],
  }


def _judged(
  lm: gs.LanguageModel,
  prompts: PromptSet,
  some: np.ndarray,
  settings: Settings,
  scores: dict[str, np.ndarray],
  which: tuple[str, int],
) -> dict[str, object]:
  """The numbers of every method and baseline for some prompts."""
  kind, chunk = which
  soft = (Soft(draws=settings.draws),) if kind == "mean" else ()
  options = FaithfulnessOptions(
    perturbation=Perturbation(kind),
    metrics=(Curves(settings.steps), Rationale(), *soft),
    random_seeds=(2 * chunk, 2 * chunk + 1),
    chunk_tokens=settings.run_tokens,
  )
  report = faithfulness(
    lm,
    to_tokens(lm, [prompts.ids[i] for i in some]),
    prompts.target(some),
    methods=(),
    scores=scores,
    options=options,
  )
  return {"better": report.better, "values": report.values}


def run_randomisation(
  lm: gs.LanguageModel, prompts: PromptSet, settings: Settings, store: Parts
) -> None:
  """The parameter-randomisation check on the first prompts of a set."""
  some = np.arange(min(settings.randomised, len(prompts.ids)))
  for method in settings.checked:
    store.get(
      f"randomisation/{method}",
      lambda method=method: randomisation_check(
        lm,
        [prompts.ids[i] for i in some],
        prompts.target(some),
        methods=(method,),
      ).to_dict(),
    )
