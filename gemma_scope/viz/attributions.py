"""Every attribution method on one prompt, side by side.

Each method's scores, what they should add up to, and how they fare when tokens
are taken away in their order; for one of them the flow of relevance through
the layers, which comes from the same backward pass.
"""

from collections.abc import Mapping, Sequence
from concurrent import futures
import dataclasses
import time
from typing import Protocol

import numpy as np

from gemma_scope import axes
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


@dataclasses.dataclass(frozen=True)
class PromptAttributions:
  """What every method said of one prompt.

  Attributes:
    attributions: One a method.
    flow: The flow of relevance, if one of them has it.
    random: The areas of random orders that the methods' areas are to be held
      against.
    streams: Site -> [seq, d] relevance of the flow's method at the residual
      streams that were asked for; empty without a flow.
  """

  attributions: tuple[parts.TokenAttribution, ...]
  flow: flow.RelevanceFlow | None
  random: tuple[float, ...]
  streams: Mapping[Site, np.ndarray]


def attribute_prompt(
  lm: LanguageModel,
  batch: TokenBatch,
  objective: Target,
  methods: Sequence[str],
  tell: Progress,
  streams: Sequence[Site] = (),
) -> PromptAttributions:
  """Asks every method about one prompt.

  Args:
    lm: The model.
    batch: The prompt.
    objective: What is explained.
    methods: Keys of `METHOD_TEXTS`.
    tell: Called with what is being done.
    streams: Residual streams whose relevance to keep element by element.
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
  found, kept = None, {}
  if through is not None:
    answer = answers[through][0]
    found = flow.flow_of(answer, METHOD_TEXTS[through].title)
    kept = {site: _rows(answer, site) for site in streams}
  if batch.width > FAITHFUL_TOKENS:
    return PromptAttributions(tuple(made), found, (), kept)
  tell("Taking tokens away")
  judged = prompt_faithfulness(
    lm, batch, objective, {a.method: a.scores for a in made}
  )
  scored = tuple(
    dataclasses.replace(a, area=judged.areas[a.method]) for a in made
  )
  return PromptAttributions(scored, found, judged.random, kept)


def _rows(answer: Attribution, site: Site) -> np.ndarray:
  """[seq, d] relevance of the first prompt."""
  value = answer[site].unwrap(axes.BATCH, axes.SEQ, axes.EMBEDDING)
  return np.asarray(value)[0]


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
