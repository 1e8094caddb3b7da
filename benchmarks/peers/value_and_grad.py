"""What relevance is measured against: one `jax.value_and_grad`, no rules.

The same model, prompt, target and sites: the gradient of the target by an
offset of zero at every site that relevance is read at.
"""

from collections.abc import Mapping
from typing import Any

from benchmarks.ours import MODEL, TARGET
from benchmarks.protocol import Case, limit_threads, serve

SITES = ("embed", "resid_post[:]")


def _value_and_grad(given: Mapping[str, Any]) -> Case:
  import jax
  import numpy as np

  import gemma_scope as gs
  from gemma_scope.attribution.evaluate import ask, evaluate, zero_offsets
  from gemma_scope.sites import resolve
  from gemma_scope.surgery import offset

  lm = gs.load(MODEL)
  tokens = np.asarray(given["tokens"], np.int32)
  _, rows, target = ask(lm, tokens, gs.attribution.logit(TARGET))
  sites = resolve(SITES, lm.config.num_layers)
  zeros = zero_offsets(lm.model, rows, sites)

  @jax.jit
  def run(model, rows, target, zeros):
    changed = offset(model, sites)
    total = lambda z: evaluate(changed, rows, target, z)[0].sum()  # noqa: E731
    return jax.value_and_grad(total)(zeros)

  return Case(
    lambda: jax.block_until_ready(run(lm.model, rows, target, zeros)),
    lambda found: float(found[0]),
  )


CASES = {"relevance": _value_and_grad}

if __name__ == "__main__":
  limit_threads()
  serve(CASES, ("jax", "jaxlib", "penzai", "numpy"))
