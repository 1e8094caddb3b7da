"""Faithfulness on a single prompt, in about a second.

The area between both curves for some methods and for random orders, with few
steps. On one prompt it is an indication, no more: the spread of the random
orders says how much of it could be luck.
"""

from collections.abc import Mapping
import dataclasses

import numpy as np

from gemma_scope.activations.tokens import Input
from gemma_scope.attribution.objectives import Target
from gemma_scope.errors import TextError
from gemma_scope.evals import score_baselines
from gemma_scope.evals.curves import Curves
from gemma_scope.evals.groups import to_groups
from gemma_scope.evals.perturbation import Perturbation, Runs, run_values
from gemma_scope.model.language_model import LanguageModel

STEPS = 5
SEEDS = (0, 1)
CHUNK_TOKENS = 256  # few runs: small chunks waste less


@dataclasses.dataclass(frozen=True)
class PromptFaithfulness:
  """Areas between the least- and most-relevant-first curves of one prompt.

  Attributes:
    areas: Method -> area, in the target's units; higher is more faithful.
    random: The area of each random order; 0 on average over many.
  """

  areas: Mapping[str, float]
  random: tuple[float, ...]


def prompt_faithfulness(
  lm: LanguageModel,
  tokens: Input,
  target: Target,
  scores_by_method: Mapping[str, np.ndarray],
  *,
  how: Perturbation | None = None,
  steps: int = STEPS,
) -> PromptFaithfulness:
  """Judges token scores of one prompt.

  Args:
    lm: The model.
    tokens: The prompt.
    target: What was explained.
    scores_by_method: Method -> [seq] score of each token, BOS included.
    how: How tokens are taken away; replaced by the prompt's mean embedding if
      not given.
    steps: Steps of each curve.

  Raises:
    TextError: If there is more than one prompt.
  """
  batch, groups = to_groups(lm, tokens, target)
  if batch.ids.shape[0] != 1:
    raise TextError(
      "This judges one prompt.",
      received=f"{batch.ids.shape[0]} prompts",
      instead="gs.evals.faithfulness(lm, prompts, target) for several",
    )
  (group,) = groups
  curves = Curves(steps)
  rows = [
    np.pad(np.ravel(scores), (0, group.width - np.size(scores)))[None]
    for scores in scores_by_method.values()
  ]
  rows += [score_baselines.random_scores(group, seed) for seed in SEEDS]
  asked = [curves.runs(row, group.candidates) for row in rows]
  values = run_values(
    lm.model,
    group,
    Runs.join(asked),
    how or Perturbation(),
    chunk_tokens=CHUNK_TOKENS,
  )
  areas = [
    float(curves.measure(part, group.candidates)["abpc"][0])
    for part in np.split(values, len(rows), axis=1)
  ]
  named = dict(zip(scores_by_method, areas))
  return PromptFaithfulness(named, tuple(areas[len(named) :]))
