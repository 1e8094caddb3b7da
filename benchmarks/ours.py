"""gemma_scope's side of the benchmarks, through its public functions."""

from collections.abc import Mapping
from typing import Any

from benchmarks.protocol import Case, limit_threads, serve

MODEL = "gemma-3-270m"
TARGET = 506  # " the"


def _load(_: Mapping[str, Any]) -> Case:
  import jax

  import gemma_scope as gs

  gs.load  # noqa: B018  imports JAX and the model: not what is timed
  return Case(
    lambda: jax.block_until_ready(gs.load(MODEL).model),
    lambda model: float(model.table.data_array[2].sum()),
  )


def _first_logits(given: Mapping[str, Any]) -> Case:
  def call():
    import numpy as np

    import gemma_scope as gs

    lm = gs.load(MODEL)
    seen = gs.capture(lm, given["tokens"], sites=["logits"], logits_at=-1)
    return np.asarray(seen["logits"].data_array)

  return Case(call, lambda logits: logits.max())


def _capture(sites: list[str]):
  def setup(given: Mapping[str, Any]) -> Case:
    import jax
    import numpy as np

    import gemma_scope as gs

    lm = gs.load(MODEL)
    tokens = np.asarray(given["tokens"], np.int32)
    chosen = [site.format(**given) for site in sites]

    def call():
      seen = gs.capture(lm, tokens, sites=chosen)
      return jax.block_until_ready(dict(seen))

    def check(seen):
      last = list(seen.values())[-1]
      return np.linalg.norm(np.asarray(last.data_array))

    return Case(call, check)

  return setup


def _attribute(method: str):
  def setup(given: Mapping[str, Any]) -> Case:
    import numpy as np

    import gemma_scope as gs
    from gemma_scope.attribution.attribute import GradientOptions

    lm = gs.load(MODEL)
    tokens = np.asarray(given["tokens"], np.int32)
    target = gs.attribution.logit(TARGET)
    options = GradientOptions(steps=given.get("steps", 20), baseline="zero")

    def call():
      # Attributions are NumPy arrays: there is nothing left to wait for.
      return gs.attribute(
        lm, tokens, target, method=method, at=["embed"], options=options
      )

    return Case(
      call, lambda found: float(np.abs(found.per_token().data_array).sum())
    )

  return setup


def _generate(given: Mapping[str, Any]) -> Case:
  import numpy as np

  import gemma_scope as gs

  lm = gs.load(MODEL)
  tokens = np.asarray(given["tokens"], np.int32)
  count = given["new_tokens"]

  def check(made) -> float:
    assert len(made.ids[0]) == count, "generation stopped early"
    return sum(made.ids[0])

  return Case(lambda: gs.generate(lm, tokens, max_new_tokens=count), check)


CASES = {
  "load": _load,
  "first_logits": _first_logits,
  "capture": _capture(["resid_post[:]"]),
  "layer": _capture(["resid_post[{layer}]"]),
  "input_x_gradient": _attribute("input_x_gradient"),
  "integrated_gradients": _attribute("integrated_gradients"),
  "generate": _generate,
}

if __name__ == "__main__":
  limit_threads()
  serve(CASES, ("jax", "jaxlib", "penzai", "numpy"))
