"""Activation patching as a loop: one full jitted forward pass for each run.

gemma_scope's own model, without batches and without starting at the patched
layer. One compiled program serves all runs: which site, layer and position it
changes are arguments. The changed value is that of the base run plus its
difference from the source run, put in by offsets.
"""

from collections.abc import Mapping
from typing import Any

from benchmarks.ours import MODEL, PATCHED
from benchmarks.protocol import Case, limit_threads, serve


def _forward(sites):
  """The jitted forward pass with one of the sites changed at one column."""
  import jax
  import jax.numpy as jnp
  from penzai import pz

  from gemma_scope.attribution.evaluate import evaluate

  @jax.jit
  def forward(model, rows, target, changes, which, column):
    here = (jnp.arange(rows.ids.shape[1]) == column)[None, :, None]
    inputs = {
      site: pz.nx.wrap(change * (here & (i == which)), *site.info.axes)
      for i, (site, change) in enumerate(zip(sites, changes))
    }
    return evaluate(model, rows, target, inputs)[0][0]

  return forward


def _patching(given: Mapping[str, Any]) -> Case:
  import numpy as np

  import gemma_scope as gs
  from gemma_scope.attribution.evaluate import ask
  from gemma_scope.sites import Site
  from gemma_scope.surgery import offset

  lm = gs.load(MODEL)
  clean, corrupt = (
    np.asarray(given[name], np.int32) for name in ("clean", "corrupt")
  )
  sites = [Site(name, layer) for name in PATCHED for layer in given["layers"]]
  target = gs.attribution.logit_difference(*given["answers"])
  model, forward = offset(lm.model, sites), _forward(sites)

  def call():
    source, base = (gs.capture(lm, ids, sites) for ids in (clean, corrupt))
    changes = [source[s].data_array - base[s].data_array for s in sites]
    _, rows, resolved = ask(lm, corrupt, target)
    return [
      float(forward(model, rows, resolved, changes, which, column))
      for which in range(len(sites))
      for column in given["positions"]
    ]

  return Case(call, lambda found: float(np.abs(found).sum()))


CASES = {"patching": _patching}

if __name__ == "__main__":
  limit_threads()
  serve(CASES, ("jax", "jaxlib", "penzai", "numpy"))
