"""gemma_scope's side of the benchmarks, through its public functions."""

from collections.abc import Mapping
from typing import Any

from benchmarks.protocol import Case, limit_threads, serve

MODEL = "gemma-3-270m"
TARGET = 506  # " the"
PATCHED = ("resid_pre", "attn_write", "mlp_write")


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
    options = None
    if "steps" in given:
      options = GradientOptions(steps=given["steps"], baseline="zero")

    def call():
      # Attributions are NumPy arrays: there is nothing left to wait for.
      return gs.attribute(
        lm, tokens, target, method=method, at=["embed"], options=options
      )

    return Case(
      call, lambda found: float(np.abs(found.per_token().data_array).sum())
    )

  return setup


def _patching(given: Mapping[str, Any]) -> Case:
  import numpy as np

  import gemma_scope as gs

  lm = gs.load(MODEL)
  clean, corrupt = (
    np.asarray(given[name], np.int32) for name in ("clean", "corrupt")
  )
  target = gs.attribution.logit_difference(*given["answers"])
  layers = ",".join(map(str, given["layers"]))
  at = [f"{name}[{layers}]" for name in PATCHED]

  def call():
    # Results are NumPy arrays: there is nothing left to wait for.
    return gs.patch(
      lm, clean, corrupt, target, at=at, positions=given["positions"]
    )

  def check(sweep) -> float:
    return sum(float(np.abs(v.data_array).sum()) for v in sweep.values())

  return Case(call, check)


def _relevance(given: Mapping[str, Any]) -> Case:
  import jax
  import numpy as np

  import gemma_scope as gs
  from gemma_scope.attribution.evaluate import ask
  from gemma_scope.attribution.relevance import relevance
  from gemma_scope.sites import resolve

  lm = gs.load(MODEL)
  tokens = np.asarray(given["tokens"], np.int32)
  _, rows, target = ask(lm, tokens, gs.attribution.logit(TARGET))
  sites = resolve(["embed", "resid_post[:]"], lm.config.num_layers)

  def call():
    found = relevance(lm.model, rows, target, sites, gs.lrp.ATTN_LRP)
    return jax.block_until_ready(found)

  return Case(call, lambda found: float(found[0].sum()))


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
  "relevance": _relevance,
  "input_x_gradient": _attribute("input_x_gradient"),
  "integrated_gradients": _attribute("integrated_gradients"),
  "patching": _patching,
  "generate": _generate,
}

if __name__ == "__main__":
  limit_threads()
  serve(CASES, ("jax", "jaxlib", "penzai", "numpy"))
