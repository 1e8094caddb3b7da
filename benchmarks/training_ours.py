"""gemma_scope's side of the training benchmark."""

from collections.abc import Mapping
import dataclasses
from typing import Any

from benchmarks.protocol import Case, limit_threads, serve
from benchmarks.training_rows import Batches

SITE = "resid_post[9]"


def _train(activation: str):
  def setup(given: Mapping[str, Any]) -> Case:
    import jax
    import numpy as np

    from gemma_scope import training

    source = _Source(Batches(given["rows"], given["batch"]))
    config = _config(activation, given)
    step = training.make_step(config, {source.sites[0]: source.width})
    now = [training.begin(config, training.measure(source, config))]

    def call():
      for _ in range(given["steps"]):
        now[0], metrics = step(now[0], next(source))
      jax.block_until_ready(now[0])
      return metrics[0]

    def notes(metrics) -> dict[str, float]:
      return {n: float(np.mean(metrics[n])) for n in ("fvu", "l0")}

    return Case(call, lambda _: source.seen(), notes=notes)

  return setup


class _Source:
  """A `RowSource`, as far as training without checkpoints needs one."""

  def __init__(self, batches: Batches):
    from gemma_scope.sites import resolve

    self.sites = tuple(resolve(SITE, 18))
    self.width = batches.width
    self._batches = batches
    self._last = None

  def __next__(self):
    import jax.numpy as jnp

    self._last = next(self._batches)
    return {self.sites[0]: jnp.asarray(self._last)}

  def seen(self) -> float:
    """The sum of squares of the last batch."""
    return float((self._last.astype("float64") ** 2).sum())


def _config(activation: str, given: Mapping[str, Any]):
  """The recipe, and the limit on the gradient's norm that both peers have."""
  from gemma_scope import training

  members = given.get("members", 1)
  sweep = training.Sweep(l0=(given["k"],), seeds=tuple(range(members)))
  config = training.preset(
    activation, [SITE], steps=30_000, width=given["width"], sweep=sweep
  )
  (group,) = config.groups
  optimiser = dataclasses.replace(group.optimiser, clip_norm=1.0)
  group = dataclasses.replace(group, optimiser=optimiser)
  return dataclasses.replace(config, groups=(group,))


CASES = {name: _train(name) for name in ("jump_relu", "batch_top_k", "top_k")}

if __name__ == "__main__":
  limit_threads()
  serve(CASES, ("jax", "jaxlib", "numpy"))
