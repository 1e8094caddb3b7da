"""What every method costs, measured by itself: nothing else may run beside it.

Seconds leave compilation out: everything runs twice, and the second counts. The
prompts are the first chunk of a part, so that its programs serve again.
"""

from collections.abc import Callable
import dataclasses
import time
from typing import Any

from component_part import METHODS, chunks, estimate, sweep
import jax
import numpy as np
from parts import Parts
from settings import METHOD_OPTIONS, Settings
from token_part import PromptSet

import gemma_scope as gs
from gemma_scope.evals import tasks
from gemma_scope.evals.groups import to_groups
from gemma_scope.evals.scores import forward_times, method_scores


def run_costs(
  lm: gs.LanguageModel, prompts: PromptSet, settings: Settings, store: Parts
) -> None:
  """The cost of token methods, and of patching and what stands in for it."""
  store.get("costs/tokens", lambda: _tokens(lm, prompts, settings))
  name, n = settings.tasks[0]
  store.get(f"costs/{name}", lambda: _pairs(lm, name, n, settings))


def _tokens(
  lm: gs.LanguageModel, prompts: PromptSet, settings: Settings
) -> dict[str, object]:
  """Forward passes and seconds a prompt of every method."""
  _, some = next(prompts.chunks(settings.chunk))
  given = [prompts.ids[i] for i in some]
  _, groups = to_groups(lm, given, prompts.target(some))
  unit = forward_times(lm, groups)
  found = {
    method: dataclasses.asdict(
      method_scores(
        *(lm, groups, method),
        options=METHOD_OPTIONS.get(method),
        forward_seconds=unit,
      ).cost
    )
    for method in settings.methods
  }
  return {"prompts": len(some), "device": _device(), "cost": found}


def _pairs(
  lm: gs.LanguageModel, name: str, n: int, settings: Settings
) -> dict[str, object]:
  """Seconds a pair of activation patching and of every estimate."""
  task = getattr(tasks, name)(lm, n=n)
  task = task.take(next(chunks(task, settings.chunk)))
  exact, seconds = _second_time(lambda: sweep(lm, task, settings))
  runs = sum(
    np.isfinite(v.unwrap(*v.named_axes)).sum() for v in exact.effect().values()
  )
  return {
    "pairs": task.n,
    "device": _device(),
    "runs": runs / task.n,
    "exact": seconds / task.n,
    "estimates": {
      label: _second_time(
        lambda label=label: estimate(lm, task, label, settings)
      )[1]
      / task.n
      for label in METHODS
    },
  }


def _second_time(run: Callable[[], Any]) -> tuple[Any, float]:
  """What a run gives, and the seconds it takes the second time."""
  run()
  start = time.perf_counter()
  found = run()
  return found, time.perf_counter() - start


def _device() -> str:
  return jax.devices()[0].device_kind
