"""Part (c), the one cell: what the MLP of layer 3 writes at the changed token.

How far apart two prompts are at that token, layer by layer, and what the target
does on the straight way from one write to the other, all else being the clean
run's.
"""

import jax
import jax.numpy as jnp
import numpy as np
from parts import Parts
from penzai import pz
from settings import Settings

import gemma_scope as gs
from gemma_scope.attribution.evaluate import ask, evaluate
from gemma_scope.evals import tasks
from gemma_scope.sites import Site
from gemma_scope.surgery.select import replace

NAMES = ("batch", "seq", "embedding")
SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
PAIRS = 8  # of each task


def run_cell(lm: gs.LanguageModel, settings: Settings, store: Parts) -> None:
  """The way and the distances of every task."""
  for name, n in settings.tasks:
    store.get(
      f"cell/{name}", lambda name=name, n=n: _cell(lm, name, min(n, PAIRS))
    )


def _cell(lm: gs.LanguageModel, name: str, n: int) -> dict[str, object]:
  task = getattr(tasks, name)(lm, n=n)
  site = Site("mlp_write", min(3, lm.config.num_layers - 1))
  at = np.arange(task.n), task.first_difference
  runs = [
    {
      str(s): np.asarray(value.unwrap(*NAMES))
      for s, value in gs.capture(
        lm, prompts, ["resid_mid[:]", "mlp_write[:]"]
      ).items()
    }
    for prompts in (task.clean, task.corrupt)
  ]
  clean, corrupt = ({s: v[at] for s, v in run.items()} for run in runs)
  return {
    "device": jax.devices()[0].device_kind,
    "site": str(site),
    "shares": SHARES,
    "target": _along(lm, task, site, runs),
    "lengths": {s: np.linalg.norm(v, axis=-1) for s, v in clean.items()},
    "distances": {
      s: np.linalg.norm(v - corrupt[s], axis=-1) for s, v in clean.items()
    },
  }


def _along(
  lm: gs.LanguageModel,
  task: tasks.Task,
  site: Site,
  runs: list[dict[str, np.ndarray]],
) -> np.ndarray:
  """[shares, pairs] the target on the way from the clean to the corrupt."""
  _, rows, target = ask(lm, task.clean, task.target)
  width = rows.ids.shape[1]
  clean, corrupt = (
    np.pad(run[str(site)], ((0, 0), (0, width - task.clean.width), (0, 0)))
    for run in runs
  )
  at = np.arange(task.n), task.first_difference

  @jax.jit
  def run(model, rows, target, value):
    put = {site: pz.nx.wrap(value, *NAMES)}
    return evaluate(replace(model, [site]), rows, target, put)[0]

  found = []
  for share in SHARES:
    value = clean.copy()
    value[at] += share * (corrupt - clean)[at]
    found.append(np.asarray(run(lm.model, rows, target, jnp.asarray(value))))
  return np.stack(found)
