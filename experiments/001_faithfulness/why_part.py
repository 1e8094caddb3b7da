"""Part (c): why AttnLRP finds less than CP-LRP, and signs less than sizes.

The two tables differ in the softmax alone. So: how much relevance each layer's
softmax makes or loses, and what becomes of the scores when the patterns of some
layers alone are held constant.
"""

from collections.abc import Mapping

import jax
import numpy as np
from parts import Parts
from settings import Settings
from token_part import PromptSet

import gemma_scope as gs
from gemma_scope.activations.tokens import to_tokens
from gemma_scope.attribution import attribute_many, lrp
from gemma_scope.attribution.composites import RuleTable
from gemma_scope.evals import (
  Curves,
  FaithfulnessOptions,
  Perturbation,
  faithfulness,
)
from gemma_scope.evals.groups import to_groups
from gemma_scope.evals.scores import token_scores

SIGNED = ("input_x_gradient", "attn_lrp", "cp_lrp")


def run_why(
  lm: gs.LanguageModel,
  sets: Mapping[str, PromptSet],
  settings: Settings,
  store: Parts,
) -> None:
  """Leaks and tables between the two on contrasts, sizes on natural text."""
  for name in ("source", "contrast"):
    prompts = sets[name]
    store.get(f"why/{prompts.name}_leaks", lambda p=prompts: _leaks(lm, p))
    for kind in settings.perturbations:
      store.get(
        f"why/{prompts.name}_{kind}",
        lambda p=prompts, kind=kind: _between(lm, p, settings, kind),
      )
  natural = sets["natural"]
  for kind in settings.perturbations:
    store.get(
      f"why/natural_{kind}",
      lambda kind=kind: _sizes(lm, natural, settings, kind),
    )


def tables(num_layers: int, period: int) -> dict[str, RuleTable]:
  """AttnLRP with the patterns of some layers held constant, by their name."""
  third = num_layers // 3
  bounds = [(0, third), (third, 2 * third), (2 * third, num_layers)]
  some = {f"held in {a} to {b - 1}": list(range(a, b)) for a, b in bounds}
  whole = [n for n in range(num_layers) if n % period == period - 1]
  some["held in global layers"] = whole
  some["held in local layers"] = [
    n for n in range(num_layers) if n not in whole
  ]
  return {
    "AttnLRP": lrp.ATTN_LRP,
    **{name: _held(layers) for name, layers in some.items()},
    "CP-LRP": lrp.CP_LRP,
  }


def _held(layers: list[int]) -> RuleTable:
  table = lrp.ATTN_LRP
  for layer in layers:
    table = table.at(f"pattern[{layer}]", {"exp": lrp.Stop()})
  return table


def _leaks(lm: gs.LanguageModel, prompts: PromptSet) -> dict[str, object]:
  """[layers + 1, prompts] relevance in the stream, as a share of the target."""
  ends = ["resid_pre[:]", "resid_post[-1]"]
  every = np.arange(len(prompts.ids))
  found = gs.attribute(
    lm,
    to_tokens(lm, prompts.ids),
    prompts.target(every),
    method="attn_lrp",
    at=ends,
  )
  return {
    "device": jax.devices()[0].device_kind,
    "target": found.target,
    "totals": np.stack([found.total(site) for site in found]),
  }


def _between(
  lm: gs.LanguageModel, prompts: PromptSet, settings: Settings, kind: str
) -> dict[str, object]:
  """The area between the curves under every table between the two."""
  target = prompts.target(np.arange(len(prompts.ids)))
  tokens = to_tokens(lm, prompts.ids)
  scores = {}
  for name, rules in tables(lm.config.num_layers, lm.config.period).items():
    (found,) = attribute_many(lm, tokens, [target], method=rules)
    scores[name] = np.asarray(found.per_token().data_array)
  return _judged(lm, prompts, scores, settings, kind)


def _sizes(
  lm: gs.LanguageModel, prompts: PromptSet, settings: Settings, kind: str
) -> dict[str, object]:
  """The same of signed scores and of their sizes."""
  target = prompts.target(np.arange(len(prompts.ids)))
  _, (group,) = to_groups(lm, prompts.ids, target)
  scores = {}
  for method in SIGNED:
    found = token_scores(lm, group, method)
    scores[method] = found
    scores[f"size of {method}"] = np.abs(found)
  return _judged(lm, prompts, scores, settings, kind)


def _judged(
  lm: gs.LanguageModel,
  prompts: PromptSet,
  scores: dict[str, np.ndarray],
  settings: Settings,
  kind: str,
) -> dict[str, object]:
  report = faithfulness(
    lm,
    to_tokens(lm, prompts.ids),
    prompts.target(np.arange(len(prompts.ids))),
    methods=(),
    scores=scores,
    options=FaithfulnessOptions(
      perturbation=Perturbation(kind),
      metrics=(Curves(settings.steps),),
      chunk_tokens=settings.run_tokens,
    ),
  )
  return {
    "device": jax.devices()[0].device_kind,
    "abpc": {name: values["abpc"] for name, values in report.values.items()},
  }
