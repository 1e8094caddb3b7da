"""SAELens' BatchTopK, trained by `SAETrainer.fit` on rows of a file.

    python -m benchmarks.peers.saelens_train ROWS.npy OUT --k 40 --width 1024

ROWS.npy holds bfloat16 rows as uint16, [batches, rows, d], in the order of
training. OUT receives the dictionary as SAELens saves it for use.
"""

import argparse
from collections.abc import Iterator
import json
import pathlib
import time

import numpy as np

from benchmarks.protocol import limit_threads

SCALED_ON = 4  # batches at the beginning, for the norm alone


def batches(path: pathlib.Path) -> Iterator:
  """float32 tensors [rows, d], in order."""
  import torch

  for batch in np.load(path, mmap_mode="r"):
    bits = torch.from_numpy(np.array(batch).view(np.int16))
    yield bits.view(torch.bfloat16).float()


def make(options: argparse.Namespace, d: int):
  """The untrained dictionary, with the names of its site and model."""
  from sae_lens.saes import batchtopk_sae as saes

  config = saes.BatchTopKTrainingSAEConfig(
    d_in=d,
    d_sae=options.width,
    k=options.k,
    normalize_activations="expected_average_only_in",
    dtype="float32",
    device=options.device,
  )
  sae = saes.BatchTopKTrainingSAE(config)
  about = {
    "hook_name": f"blocks.{options.layer}.hook_resid_post",
    "hook_head_index": None,
    "model_name": options.model,
  }
  for name, value in about.items():
    sae.cfg.metadata[name] = value
  return sae


def train(options: argparse.Namespace) -> dict[str, float]:
  """Trains, saves, and says what it took."""
  from sae_lens.config import SAETrainerConfig
  from sae_lens.training.sae_trainer import SAETrainer
  import torch

  torch.manual_seed(options.seed)
  count, size, d = np.load(options.rows, mmap_mode="r").shape
  steps = count - SCALED_ON
  config = SAETrainerConfig(
    total_training_samples=steps * size,
    train_batch_size_samples=size,
    lr=options.lr,
    lr_end=options.lr / 10,
    lr_warm_up_steps=min(options.warmup, steps // 4),
    lr_decay_steps=steps // 5,
    device=options.device,
    dead_feature_window=options.dead_after,
    n_batches_for_norm_estimate=SCALED_ON,
  )
  trainer = SAETrainer(config, make(options, d), batches(options.rows))
  start = time.perf_counter()
  sae = trainer.fit()
  seconds = time.perf_counter() - start
  sae.save_inference_model(options.out)
  return {"seconds": seconds, "rows_per_second": steps * size / seconds}


def main() -> None:
  """The command line."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("rows", type=pathlib.Path)
  parser.add_argument("out", type=pathlib.Path)
  parser.add_argument("--k", type=float, required=True)
  parser.add_argument("--width", type=int, default=1024)
  parser.add_argument("--layer", type=int, default=9)
  parser.add_argument("--model", default="gemma-3-270m", help="its name")
  parser.add_argument("--lr", type=float, default=3e-4)
  parser.add_argument("--warmup", type=int, default=100)
  parser.add_argument("--dead-after", type=int, default=100, help="steps")
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--device", default="cpu")
  found = train(parser.parse_args())
  print(json.dumps(found))


if __name__ == "__main__":
  limit_threads()
  main()
