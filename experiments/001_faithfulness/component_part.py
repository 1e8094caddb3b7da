"""Part (b): how well approximations follow full activation patching.

The base run is the clean prompt and the source run the corrupt one (noising).
Cells before the first token in which the two differ have equal activations in
both runs: their effect is exactly zero and no run is spent on them.
"""

from collections.abc import Iterator

import numpy as np
from parts import Parts
from settings import Settings

import gemma_scope as gs
from gemma_scope.attribution.composites import ATTN_LRP
from gemma_scope.attribution.patching.approximate import approximate_patching
from gemma_scope.attribution.patching.estimate import PatchEstimate
from gemma_scope.attribution.patching.question import EstimateOptions
from gemma_scope.attribution.patching.result import PatchSweep
from gemma_scope.attribution.patching.sweep import PatchOptions, patch
from gemma_scope.evals import tasks

METHODS = {
  "attribution_patching": ("attribution_patching", EstimateOptions()),
  "integrated_gradients": ("integrated_gradients", EstimateOptions(steps=8)),
  "atp_star": ("atp_star", EstimateOptions(grad_drop=False)),
  "relp": ("relp", EstimateOptions()),
  "relp_attn_lrp": ("relp", EstimateOptions(rules=ATTN_LRP)),
}


def run_task(
  lm: gs.LanguageModel, name: str, n: int, settings: Settings, store: Parts
) -> None:
  """Exact and estimated effects of one task, chunk by chunk."""
  task = getattr(tasks, name)(lm, n=n)
  store.get(
    f"components/{name}/task",
    lambda: {
      "n": task.n,
      "tried": task.tried,
      "clean": task.clean_value,
      "corrupt": task.corrupt_value,
      "example": [task.pairs[0].clean, task.pairs[0].corrupt],
    },
  )
  for i, some in enumerate(chunks(task, settings.chunk)):
    part = task.take(some)
    for compute in (_exact, _estimates):
      store.get(
        f"components/{name}/{i:03d}{compute.__name__}",
        lambda part=part, compute=compute: compute(lm, part, settings),
      )


def chunks(task: tasks.Task, size: int) -> Iterator[np.ndarray]:
  """Pairs of like length that begin to differ at like tokens together."""
  order = np.lexsort((task.first_difference, task.clean.lengths))
  for start in range(0, len(order), size):
    yield order[start : start + size]


def _addresses(settings: Settings) -> list[str]:
  return [f"{name}[:]" for name in settings.sites]


def sweep(
  lm: gs.LanguageModel, part: tasks.Task, settings: Settings
) -> PatchSweep:
  """Every cell from the first difference on, in pairs of one length."""
  first, lengths = part.first_difference.min(), part.clean.lengths
  one_length = lengths.min() == lengths.max()
  return patch(
    lm,
    part.corrupt,
    part.clean,
    part.target,
    at=_addresses(settings),
    positions=range(int(first), part.clean.width) if one_length else "each",
    options=PatchOptions(memory=settings.memory),
  )


def _exact(
  lm: gs.LanguageModel, part: tasks.Task, settings: Settings
) -> dict[str, object]:
  """Effects of patching, [pairs, layers, positions(, heads)] by site name.

  Zero before a pair's first difference, where both runs are equal, and behind
  its end.
  """
  effects = _by_name(sweep(lm, part, settings).effect(), settings)
  first, lengths = part.first_difference, part.clean.lengths
  columns, padded = np.arange(part.clean.width), {}
  here = (first[:, None] <= columns) & (columns < lengths[:, None])
  for name, e in effects.items():
    missing = part.clean.width - e.shape[2]
    e = np.pad(e, [(0, 0), (0, 0), (missing, 0)] + [(0, 0)] * (e.ndim - 3))
    kept = here.reshape(len(e), 1, -1, *(1,) * (e.ndim - 3))
    padded[name] = np.where(kept, e, 0.0)
  return {"effects": padded, "first": first, "lengths": lengths}


def estimate(
  lm: gs.LanguageModel, part: tasks.Task, label: str, settings: Settings
) -> PatchEstimate:
  """One approximation of the effects; a row of `METHODS`."""
  method, options = METHODS[label]
  return approximate_patching(
    lm,
    part.corrupt,
    part.clean,
    part.target,
    method=method,
    at=_addresses(settings),
    options=options,
  )


def _estimates(
  lm: gs.LanguageModel, part: tasks.Task, settings: Settings
) -> dict[str, object]:
  """Estimates by method, each like the effects of `_exact`."""
  return {
    "estimates": {
      label: _by_name(estimate(lm, part, label, settings), settings)
      for label in METHODS
    }
  }


def _by_name(arrays, settings: Settings) -> dict[str, np.ndarray]:
  """[pairs, layers, positions(, heads)] of every site name."""
  stacked = {}
  for name in settings.sites:
    layers = [v for site, v in arrays.items() if site.name == name]
    rows = []
    for value in layers:
      names = list(value.named_axes)
      first = [n for n in ("batch", "seq") if n in names]
      rest = [n for n in names if n not in first]
      rows.append(np.asarray(value.unwrap(*first, *rest)))
    stacked[name] = np.stack(rows, axis=1)
  return stacked
