"""SAELens' trainer: what `SAETrainer.fit` does for every batch.

With Adam's fused kernel, which is faster.
"""

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.protocol import Case, limit_threads, serve
from benchmarks.training_rows import Batches

MANY = 30_000  # steps of the run that the schedules are made for


def _jump_relu(shape: dict[str, Any], k: int) -> Any:
  from sae_lens.saes import jumprelu_sae as saes

  config = saes.JumpReLUTrainingSAEConfig(
    **shape, jumprelu_sparsity_loss_mode="quadratic", target_l0=k
  )
  return saes.JumpReLUTrainingSAE(config)


def _batch_top_k(shape: dict[str, Any], k: int) -> Any:
  from sae_lens.saes import batchtopk_sae as saes

  config = saes.BatchTopKTrainingSAEConfig(**shape, k=k)
  return saes.BatchTopKTrainingSAE(config)


def _top_k(shape: dict[str, Any], k: int) -> Any:
  from sae_lens.saes import topk_sae as saes

  return saes.TopKTrainingSAE(saes.TopKTrainingSAEConfig(**shape, k=k))


class _Rows:
  """SAELens' data provider."""

  def __init__(self, batches: Batches):
    self._batches = batches
    self.last = None

  def __iter__(self) -> "_Rows":
    return self

  def __next__(self):
    import torch

    self.last = torch.from_numpy(next(self._batches))
    return self.last


def _trainer(sae: Any, given: Mapping[str, Any], rows: _Rows):
  from sae_lens.config import SAETrainerConfig
  from sae_lens.training.sae_trainer import SAETrainer

  config = SAETrainerConfig(
    total_training_samples=MANY * given["batch"],
    train_batch_size_samples=given["batch"],
    lr_end=3e-5,
    device="cpu",
  )
  trainer = SAETrainer(config, sae, rows)
  for group in trainer.optimizer.param_groups:
    group.update(fused=True, foreach=False)
  trainer.activation_scaler.estimate_scaling_factor(sae.cfg.d_in, rows, 4)
  return trainer


def _step(trainer: Any) -> None:
  trainer.step(next(trainer.data_provider))
  trainer.n_training_steps += 1


def _train(make: Callable[[dict[str, Any], int], Any]):
  def setup(given: Mapping[str, Any]) -> Case:
    width = Batches(given["rows"], given["batch"]).width
    shape = {
      "d_in": width,
      "d_sae": given["width"],
      "device": "cpu",
      "dtype": "float32",
    }
    rows = _Rows(Batches(given["rows"], given["batch"]))
    trainer = _trainer(make(shape, given["k"]), given, rows)

    def call():
      for _ in range(given["steps"]):
        _step(trainer)

    return Case(call, lambda _: _seen(trainer), notes=lambda _: _notes(trainer))

  return setup


def _seen(trainer: Any) -> float:
  return float(trainer.data_provider.last.double().square().sum())


def _notes(trainer: Any) -> dict[str, float]:
  import torch

  with torch.no_grad():
    x = trainer.activation_scaler(trainer.data_provider.last)
    f = trainer.sae.encode(x)
    missed = (x - trainer.sae.decode(f)).square().sum()
    variance = (x - x.mean(0)).square().sum()
    f = f.to_dense() if f.is_sparse else f
    return {
      "fvu": float(missed / variance),
      "l0": float((f != 0).sum() / len(x)),
    }


CASES = {
  "jump_relu": _train(_jump_relu),
  "batch_top_k": _train(_batch_top_k),
  "top_k": _train(_top_k),
}

if __name__ == "__main__":
  limit_threads()
  serve(CASES, ("torch", "sae-lens"))
