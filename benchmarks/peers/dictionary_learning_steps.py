"""dictionary_learning's trainers: what `trainSAE` does for every batch.

With Adam's fused kernel, which is faster.
"""

from collections.abc import Mapping
from typing import Any

from benchmarks.protocol import Case, limit_threads, serve
from benchmarks.training_rows import Batches

MANY = 30_000  # steps of the run that the schedules are made for


def _trainer(activation: str, given: Mapping[str, Any], width: int):
  from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer
  from dictionary_learning.trainers.jumprelu import JumpReluTrainer
  from dictionary_learning.trainers.top_k import TopKTrainer

  kind, sparsity = {
    "jump_relu": (JumpReluTrainer, {"target_l0": given["k"]}),
    "batch_top_k": (BatchTopKTrainer, {"k": given["k"]}),
    "top_k": (TopKTrainer, {"k": given["k"]}),
  }[activation]
  trainer = kind(
    steps=MANY,
    activation_dim=width,
    dict_size=given["width"],
    layer=9,
    lm_name="gemma-3-270m",
    device="cpu",
    **sparsity,
  )
  for group in trainer.optimizer.param_groups:
    group.update(fused=True, foreach=False)
  return trainer


def _train(activation: str):
  def setup(given: Mapping[str, Any]) -> Case:
    import torch

    batches = Batches(given["rows"], given["batch"])
    trainer = _trainer(activation, given, batches.width)
    first = [torch.from_numpy(next(batches)) for _ in range(4)]
    norm = torch.cat(first).square().sum(1).mean().sqrt()
    now = {"step": 0, "rows": first[-1]}

    def call():
      for _ in range(given["steps"]):
        now["rows"] = torch.from_numpy(next(batches))
        trainer.update(now["step"], now["rows"] / norm)
        now["step"] += 1

    def seen(_) -> float:
      return float(now["rows"].double().square().sum())

    return Case(call, seen, notes=lambda _: _notes(trainer, now["rows"] / norm))

  return setup


def _notes(trainer: Any, x: Any) -> dict[str, float]:
  import torch

  ae = trainer.ae
  by_count = hasattr(ae, "k")  # TopK and BatchTopK, as in training
  with torch.no_grad():
    f = ae.encode(x, use_threshold=False) if by_count else ae.encode(x)
    missed = (x - ae.decode(f)).square().sum()
    variance = (x - x.mean(0)).square().sum()
    return {
      "fvu": float(missed / variance),
      "l0": float((f != 0).sum() / len(x)),
    }


CASES = {name: _train(name) for name in ("jump_relu", "batch_top_k", "top_k")}

if __name__ == "__main__":
  limit_threads()
  serve(CASES, ("torch", "dictionary-learning"))
