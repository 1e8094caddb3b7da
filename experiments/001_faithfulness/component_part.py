"""Part (b): how well approximations follow full activation patching.

The base run is the clean prompt and the source run the corrupt one (noising).
Cells before the first token in which the two differ have equal activations in
both runs: their effect is exactly zero and no run is spent on them.
"""

from collections.abc import Iterator
import time

import numpy as np
from settings import Settings
from store import Store

import gemma_scope as gs
from gemma_scope.attribution.composites import ATTN_LRP
from gemma_scope.attribution.patching.approximate import approximate_patching
from gemma_scope.attribution.patching.question import EstimateOptions
from gemma_scope.attribution.patching.sweep import patch
from gemma_scope.evals import tasks

METHODS = {
  "attribution_patching": ("attribution_patching", EstimateOptions()),
  "integrated_gradients": ("integrated_gradients", EstimateOptions(steps=8)),
  "atp_star": ("atp_star", EstimateOptions(grad_drop=False)),
  "relp": ("relp", EstimateOptions()),
  "relp_attn_lrp": ("relp", EstimateOptions(rules=ATTN_LRP)),
}


def run_task(
  lm: gs.LanguageModel, name: str, n: int, settings: Settings, store: Store
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
  for i, some in enumerate(_chunks(task, settings.chunk)):
    part = task.take(some)
    for compute in (_exact, _estimates):
      store.get(
        f"components/{name}/{i:03d}{compute.__name__}",
        lambda part=part, compute=compute: compute(lm, part, settings),
      )


def _chunks(task: tasks.Task, size: int) -> Iterator[np.ndarray]:
  """Pairs that are equally long and begin to differ at the same token."""
  shape = np.stack([task.clean.lengths, task.first_difference], axis=1)
  for kind in np.unique(shape, axis=0):
    rows = np.flatnonzero((shape == kind).all(axis=1))
    for start in range(0, len(rows), size):
      yield rows[start : start + size]


def _addresses(settings: Settings) -> list[str]:
  return [f"{name}[:]" for name in settings.sites]


def _exact(
  lm: gs.LanguageModel, part: tasks.Task, settings: Settings
) -> dict[str, object]:
  """Effects of patching, [pairs, layers, positions(, heads)] by site name."""
  first, width = int(part.first_difference[0]), part.clean.width
  start = time.perf_counter()
  sweep = patch(
    lm,
    part.corrupt,
    part.clean,
    part.target,
    at=_addresses(settings),
    positions=range(first, width),
  )
  seconds = time.perf_counter() - start
  effects = _by_name(sweep.effect(), settings)
  runs = sum(e.size for e in effects.values())
  padded = {
    name: np.pad(e, [(0, 0), (0, 0), (first, 0)] + [(0, 0)] * (e.ndim - 3))
    for name, e in effects.items()
  }
  return {
    "effects": padded,
    "first": first,
    "seconds": seconds / part.n,
    "runs": runs / part.n,
  }


def _estimates(
  lm: gs.LanguageModel, part: tasks.Task, settings: Settings
) -> dict[str, object]:
  """Estimates by method, each like the effects of `_exact`."""
  found, seconds = {}, {}
  for label, (method, options) in METHODS.items():
    for _ in range(2):  # the first run compiles
      start = time.perf_counter()
      estimate = approximate_patching(
        lm,
        part.corrupt,
        part.clean,
        part.target,
        method=method,
        at=_addresses(settings),
        options=options,
      )
      seconds[label] = (time.perf_counter() - start) / part.n
    found[label] = _by_name(estimate, settings)
  return {"estimates": found, "seconds": seconds}


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
