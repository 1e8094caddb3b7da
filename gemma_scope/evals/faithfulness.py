"""One entrance to the faithfulness of attribution methods.

All methods are judged on the same prompts by the same runs of the model, beside
baselines that know nothing of it. Every number is one a prompt; the report adds
bootstrap intervals over prompts and paired differences.

Perturbed prompts are not text: a number says how the model answers to them, and
differs with how tokens are taken away. Integrated gradients from the mean
embedding are at an advantage under `mean`, the path they integrate; hold the
order of methods against a second kind before believing it.
"""

from collections.abc import Callable, Iterable, Mapping
import dataclasses
from typing import Any

import numpy as np

from gemma_scope.activations.tokens import Input
from gemma_scope.attribution.objectives import Target, logit
from gemma_scope.errors import ConfigError
from gemma_scope.evals import score_baselines
from gemma_scope.evals.agreement import agreement
from gemma_scope.evals.curves import Curves
from gemma_scope.evals.groups import Group, merge, to_groups
from gemma_scope.evals.metrics import Metric
from gemma_scope.evals.perturbation import (
  CHUNK_TOKENS,
  Perturbation,
  Runs,
  run_values,
)
from gemma_scope.evals.rationale import Rationale
from gemma_scope.evals.report import FaithfulnessReport
from gemma_scope.evals.retention import Soft
from gemma_scope.evals.scores import Cost, forward_times, method_scores
from gemma_scope.model.language_model import LanguageModel

METHODS = ("input_x_gradient", "integrated_gradients", "attn_lrp")
Progress = Callable[[str, float | None], None]
Rows = tuple[np.ndarray, ...]  # one array [prompts, width] a group


@dataclasses.dataclass(frozen=True)
class FaithfulnessOptions:
  """How methods are judged.

  Attributes:
    perturbation: How tokens are taken away.
    metrics: What is measured.
    value: What the target's values are turned into before they are compared,
      such as `np.exp` for probabilities from log-probabilities.
    random_seeds: Seeds of the random baseline; its numbers are their mean.
    top_k: How many tokens agreement between methods compares.
    chunk_tokens: Tokens of all the perturbed runs that go side by side.
  """

  perturbation: Perturbation = dataclasses.field(default_factory=Perturbation)
  metrics: tuple[Metric, ...] = (Curves(), Rationale(), Soft())
  value: Callable[[np.ndarray], np.ndarray] = np.asarray
  random_seeds: tuple[int, ...] = (0, 1, 2)
  top_k: int = 3
  chunk_tokens: int = CHUNK_TOKENS


def faithfulness(
  lm: LanguageModel,
  prompts: Input,
  target: Target | str | int,
  *,
  methods: Iterable[str] = METHODS,
  scores: Mapping[str, np.ndarray] | None = None,
  options: FaithfulnessOptions | None = None,
  method_options: Mapping[str, Any] | None = None,
  progress: Progress | None = None,
) -> FaithfulnessReport:
  """Judges attribution methods by what the model does without their tokens.

  Args:
    lm: The model.
    prompts: Text, texts or token ids.
    target: What is explained; one token for all prompts or one for each.
    methods: Names of attribution methods.
    scores: Further scores by name, [prompts, seq], such as a method of yours.
    options: How methods are judged.
    method_options: Method -> its options.
    progress: Called with a label and the share done.

  Raises:
    TextError: If prompts and target cannot be used.
    ConfigError: If a name is taken twice, or a method is unknown.
  """
  options = options or FaithfulnessOptions()
  report = progress or (lambda _label, _share: None)
  target = target if isinstance(target, Target) else logit(target)
  batch, groups = to_groups(lm, prompts, target)
  rows, cost = _scored(
    lm,
    groups,
    _distinct(tuple(methods), tuple(scores or ())),
    method_options or {},
    report,
  )
  for name, given in (scores or {}).items():
    rows[name] = tuple(_fit(np.asarray(given), group) for group in groups)
  judged = with_baselines(lm, groups, rows, options.random_seeds)
  values = measure(lm, groups, judged, options, report)
  merged = {
    name: merge(groups, rows[name].__getitem__, batch.width) for name in rows
  }
  here = merge(groups, lambda i: groups[i].candidates, batch.width) > 0
  return FaithfulnessReport(
    values=_mean_of_seeds(values),
    better=_better(options),
    baselines=score_baselines.NAMES,
    cost=cost,
    agreement=agreement(merged, here, k=options.top_k),
    scores=merged,
    config=_described(lm, options, groups),
  )


def _scored(
  lm: LanguageModel,
  groups: tuple[Group, ...],
  methods: tuple[str, ...],
  options: Mapping[str, Any],
  progress: Progress,
) -> tuple[dict[str, Rows], dict[str, Cost]]:
  """Scores and costs of every method."""
  rows, cost = {}, {}
  unit = forward_times(lm, groups) if methods else ()
  for i, name in enumerate(methods):
    progress(f"scores of {name}", i / len(methods))
    found = method_scores(
      lm, groups, name, options=options.get(name), forward_seconds=unit
    )
    rows[name], cost[name] = found.rows, found.cost
  return rows, cost


def with_baselines(
  lm: LanguageModel,
  groups: tuple[Group, ...],
  rows: Mapping[str, Rows],
  seeds: Iterable[int],
) -> dict[str, Rows]:
  """The methods' scores and those of every baseline."""
  judged = dict(rows)
  for seed in seeds:
    judged[f"{score_baselines.RANDOM}/{seed}"] = tuple(
      score_baselines.random_scores(group, seed) for group in groups
    )
  judged[score_baselines.RECENCY] = tuple(
    score_baselines.recency_scores(group) for group in groups
  )
  judged[score_baselines.LENGTH] = tuple(
    score_baselines.length_scores(group, lm.tokenizer) for group in groups
  )
  return judged


def measure(
  lm: LanguageModel,
  groups: tuple[Group, ...],
  rows: Mapping[str, Rows],
  options: FaithfulnessOptions,
  progress: Progress,
) -> dict[str, dict[str, np.ndarray]]:
  """Every number of every set of scores: name -> number -> [prompts].

  Args:
    lm: The model.
    groups: The prompts.
    rows: Scores by name, one array a group.
    options: How they are judged.
    progress: Called with a label and the share done.
  """
  total = sum(group.size for group in groups)
  found = {
    name: {k: np.full(total, np.nan) for k in _better(options)} for name in rows
  }
  for i, group in enumerate(groups):
    progress(f"perturbed runs, {group.width} tokens", i / len(groups))
    asked = {
      name: [m.runs(rows[name][i], group.candidates) for m in options.metrics]
      for name in rows
    }
    every = [runs for parts in asked.values() for runs in parts]
    values = options.value(
      run_values(
        lm.model,
        group,
        Runs.join(every),
        options.perturbation,
        chunk_tokens=options.chunk_tokens,
      )
    )
    ends = np.cumsum([runs.keep.shape[1] for runs in every])[:-1]
    parts = iter(np.split(values, ends, axis=1))
    for name in rows:
      for metric in options.metrics:
        numbers = metric.measure(next(parts), group.candidates)
        for key, number in numbers.items():
          found[name][key][group.index] = number
  return found


def _mean_of_seeds(
  values: Mapping[str, dict[str, np.ndarray]],
) -> dict[str, dict[str, np.ndarray]]:
  """The random baseline's seeds put together, prompt by prompt."""
  prefix = f"{score_baselines.RANDOM}/"
  seeds = [v for name, v in values.items() if name.startswith(prefix)]
  kept = {n: v for n, v in values.items() if not n.startswith(prefix)}
  if seeds:
    kept[score_baselines.RANDOM] = {
      key: np.mean([seed[key] for seed in seeds], axis=0) for key in seeds[0]
    }
  return kept


def _better(options: FaithfulnessOptions) -> dict[str, str]:
  return {k: v for m in options.metrics for k, v in m.better.items()}


def _fit(given: np.ndarray, group: Group) -> np.ndarray:
  """A group's rows of scores that are given for all prompts."""
  rows = given[group.index][:, : group.width]
  return np.pad(rows, ((0, 0), (0, group.width - rows.shape[1])))


def _distinct(
  methods: tuple[str, ...], given: tuple[str, ...]
) -> tuple[str, ...]:
  """The methods, if no name means two things."""
  every = (*methods, *given, *score_baselines.NAMES)
  twice = sorted({name for name in every if every.count(name) > 1})
  if twice:
    raise ConfigError(
      "Two sets of scores have one name.",
      received=", ".join(twice),
      instead="a name for each; random, recency and length are always there",
    )
  return methods


def _described(
  lm: LanguageModel,
  options: FaithfulnessOptions,
  groups: tuple[Group, ...],
) -> dict[str, Any]:
  """The settings as JSON values."""
  return {
    "model": lm.name,
    "perturbation": dataclasses.asdict(options.perturbation),
    "metrics": [repr(metric) for metric in options.metrics],
    "random_seeds": list(options.random_seeds),
    "widths": {str(g.width): g.size for g in groups},
  }
