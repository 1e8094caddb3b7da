"""The shuffle buffer's cost: rows for training beside the forward pass alone.

    python -m benchmarks.model_rows [--size 270m] [--dtype bfloat16]
    python -m benchmarks.model_rows --tiny          # runs on a CPU, in seconds

The 40 sites of Gemma 3 270M that its starter suite is trained on (mlp_in and
mlp_write of every layer, resid_post of four), from tokens on the disk. In turn,
A B A B …: (A) a harvest of every batch of a stretch of text, nothing kept; (B)
batches of 4,096 rows from `ModelRows` over the same text, until as many rows
were given as (A) saw. The table gives counted tokens a second of each and the
median of the ratios of neighbours, A's time over B's: 1 is a buffer that costs
nothing. (C) is the pipeline alone, on the host: it must be faster than (A).
"""

import argparse
from collections.abc import Callable
import pathlib
import statistics
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.gpu_ours import config_of, hashed_gemma
from gemma_scope.activations.corpus.corpus import Corpus
from gemma_scope.activations.corpus.options import PackingOptions
from gemma_scope.activations.corpus.pipeline import TokenPipeline
from gemma_scope.activations.harvest import Harvest
from gemma_scope.activations.shuffle_buffer import ModelRows
from gemma_scope.model.language_model import LanguageModel
from gemma_scope.testing.tokenizer import tiny_tokenizer

TYPICAL = 500  # tokens of a document, on average


def main() -> None:
  """Prints the table."""
  options = parse()
  lm = model_of(options)
  with tempfile.TemporaryDirectory() as folder:
    text = text_of(options, pathlib.Path(folder) / "ids.npy")
    harvest = Harvest(lm, sites_of(lm), dtype=options.dtype)
    pipeline = pipeline_of(options, text, lm)
    rows = ModelRows(
      harvest,
      pipeline,
      batch_rows=options.batch_rows,
      buffer_rows=options.buffer_rows,
    )
    report(options, harvest, rows)


def report(
  options: argparse.Namespace, harvest: Harvest, rows: ModelRows
) -> None:
  """Times the three and prints them."""
  device = jax.devices()[0]
  print(f"{device.device_kind}, {options.size} {options.dtype}, ", end="")
  print(f"{len(harvest.sites)} sites, {rows.buffer_bytes / 1e9:.2f} GB buffer")
  pipeline = rows.pipeline
  forwards(harvest, pipeline, 1)
  next(rows)
  alone, buffered = [], []
  for _ in range(options.pairs):
    tokens, seconds = timed(lambda: forwards(harvest, pipeline, options.steps))
    alone.append(tokens / seconds)
    tokens, seconds = timed(lambda t=tokens: drawn(rows, t))
    buffered.append(tokens / seconds)
  tokens, seconds = timed(lambda: read(pipeline, options.steps))
  ratios = [b / a for a, b in zip(alone, buffered)]
  print(f"forward alone   {statistics.median(alone):12,.0f} tokens/s")
  print(f"shuffle buffer  {statistics.median(buffered):12,.0f} tokens/s")
  print(f"pipeline alone  {tokens / seconds:12,.0f} tokens/s")
  print(
    f"ratio {statistics.median(ratios):.3f} "
    f"({min(ratios):.3f} to {max(ratios):.3f})"
  )


def timed(work: Callable[[], int]) -> tuple[int, float]:
  """Tokens and seconds."""
  start = time.perf_counter()
  tokens = work()
  return tokens, time.perf_counter() - start


def forwards(harvest: Harvest, pipeline: TokenPipeline, steps: int) -> int:
  """Harvests some batches, two at a time under way."""
  total, running = 0, []
  for _ in range(steps):
    batch = next(pipeline)
    total += batch.num_counted
    running.append(harvest(batch)[1])
    if len(running) > 2:
      running.pop(0).block_until_ready()
  jax.block_until_ready(running)
  return total


def drawn(rows: ModelRows, tokens: int) -> int:
  """Draws batches until about so many rows were given."""
  batch, count = {}, -(-tokens // rows.batch_rows)
  for _ in range(count):
    batch = next(rows)
  jax.block_until_ready(batch)
  return count * rows.batch_rows


def read(pipeline: TokenPipeline, steps: int) -> int:
  """Reads some batches."""
  return sum(next(pipeline).num_counted for _ in range(steps))


def model_of(options: argparse.Namespace) -> LanguageModel:
  """A model of random weights: speed does not depend on them."""
  config = config_of(options.size)
  model = hashed_gemma(config, jnp.dtype(options.dtype), config.num_layers > 26)
  return LanguageModel(model, tiny_tokenizer(), config, options.size, "random")


def sites_of(lm: LanguageModel) -> list[str]:
  """Every layer's feed-forward, and four residual streams."""
  layers = lm.config.num_layers
  four = ",".join(str(layers * k // 10) for k in (3, 5, 7, 9))
  return ["mlp_in[:]", "mlp_write[:]", f"resid_post[{four}]"]


def text_of(options: argparse.Namespace, path: pathlib.Path) -> Corpus:
  """Random ids of the tiny vocabulary, as documents in a file."""
  rng = np.random.default_rng(0)
  size = 4 * options.steps * options.rows * options.length
  ids = rng.integers(108, 512, size, np.int32)
  ids[rng.integers(0, size, size // TYPICAL)] = 2
  np.save(path, ids)
  return Corpus.open(path)


def pipeline_of(
  options: argparse.Namespace, corpus: Corpus, lm: LanguageModel
) -> TokenPipeline:
  """Endless batches."""
  packing = PackingOptions(
    seq_len=options.length, batch_size=options.rows, epochs=None
  )
  return TokenPipeline(corpus, lm.tokenizer, packing)


def parse() -> argparse.Namespace:
  """The options, those of `--tiny` in place of the defaults."""
  parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
  parser.add_argument("--size", default="270m")
  parser.add_argument("--dtype", default="bfloat16")
  parser.add_argument("--rows", type=int, default=16)
  parser.add_argument("--length", type=int, default=1024)
  parser.add_argument("--batch-rows", type=int, default=4096)
  parser.add_argument("--buffer-rows", type=int, default=1 << 18)
  parser.add_argument("--steps", type=int, default=32, help="forwards a time")
  parser.add_argument("--pairs", type=int, default=5)
  parser.add_argument("--tiny", action="store_true")
  options = parser.parse_args()
  if options.tiny:
    small = {"size": "tiny", "dtype": "float32", "rows": 4, "length": 64}
    small |= {"batch_rows": 128, "buffer_rows": 4096, "steps": 50}
    vars(options).update(small)
  return options


if __name__ == "__main__":
  main()
