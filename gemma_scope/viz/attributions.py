"""Every attribution method on one prompt, side by side.

Each method's scores, what they should add up to, and how they fare when tokens
are taken away in their order; for one of them the flow of relevance through
the layers, which comes from the same backward pass.
"""

from collections.abc import Sequence
from concurrent import futures
import dataclasses
import time
from typing import Protocol

import numpy as np

from gemma_scope.activations.tokens import TokenBatch
from gemma_scope.analysis import explanation as parts
from gemma_scope.analysis import flow
from gemma_scope.attribution.attribute import attribute
from gemma_scope.attribution.objectives import Target
from gemma_scope.attribution.result import Attribution
from gemma_scope.evals.one_prompt import prompt_faithfulness
from gemma_scope.model.language_model import LanguageModel
from gemma_scope.sites import Site
from gemma_scope.viz.methods import FLOW_METHODS, METHOD_TEXTS

NEURON_TOKENS = 256  # of longer prompts no neurons: layers x T x d_ff floats
FAITHFUL_TOKENS = 96  # longer prompts are not perturbed: dozens of passes


class Progress(Protocol):
  """Is told what is being done, and how much of it (0 to 1)."""

  def __call__(self, stage: str, fraction: float | None = None) -> None:
    """Tells a stage and its fraction done."""


def attribute_prompt(
  lm: LanguageModel,
  batch: TokenBatch,
  objective: Target,
  methods: Sequence[str],
  tell: Progress,
) -> tuple[
  tuple[parts.TokenAttribution, ...],
  flow.RelevanceFlow | None,
  tuple[float, ...],
]:
  """Asks every method about one prompt.

  Args:
    lm: The model.
    batch: The prompt.
    objective: What is explained.
    methods: Keys of `METHOD_TEXTS`.
    tell: Called with what is being done.

  Returns:
    One attribution a method, the flow of relevance if one of them has it, and
    the areas of random orders that the methods' areas are to be held against.
  """
  through = next((m for m in FLOW_METHODS if m in methods), None)

  def ask(method: str) -> tuple[Attribution, float]:
    start = time.perf_counter()
    text = METHOD_TEXTS[method]
    tell(f"Attributing: {text.title}")
    at = _sites(batch) if method == through else ["embed"]
    result = attribute(
      lm, batch, objective, method=method, at=at, options=text.options
    )
    return result, time.perf_counter() - start

  # Tracing and loading a program take one core: two methods share two.
  with futures.ThreadPoolExecutor(max_workers=2) as pool:
    answers = dict(zip(methods, pool.map(ask, methods)))
  made = [_described(*answer) for answer in answers.values()]
  found = None
  if through is not None:
    found = flow.flow_of(answers[through][0], METHOD_TEXTS[through].title)
  if batch.width > FAITHFUL_TOKENS:
    return tuple(made), found, ()
  tell("Taking tokens away")
  judged = prompt_faithfulness(
    lm, batch, objective, {a.method: a.scores for a in made}
  )
  scored = tuple(
    dataclasses.replace(a, area=judged.areas[a.method]) for a in made
  )
  return scored, found, judged.random


def _sites(batch: TokenBatch) -> list[str]:
  few = batch.width <= NEURON_TOKENS
  return [*flow.SITES, *([flow.NEURONS] if few else [])]


def _described(result: Attribution, seconds: float) -> parts.TokenAttribution:
  text = METHOD_TEXTS[result.method]
  expected = float(result.expected[Site("embed")][0])
  return parts.TokenAttribution(
    method=result.method,
    title=text.title,
    description=text.description,
    scores=np.asarray(result.per_token().data_array)[0],
    total=None if np.isnan(expected) else expected,
    seconds=seconds,
    notes=text.notes,
  )
