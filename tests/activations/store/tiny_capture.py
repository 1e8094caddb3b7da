"""A capture that takes a second: a tiny model over made-up documents.

    python -m tests.activations.store.tiny_capture FOLDER [ROWS]

commits after every batch and prints a line for each; tests kill it.
"""

import sys

import numpy as np

from gemma_scope.activations.corpus.corpus import Corpus
from gemma_scope.activations.corpus.options import PackingOptions
from gemma_scope.activations.corpus.pipeline import TokenPipeline
from gemma_scope.activations.harvest import Harvest
from gemma_scope.activations.store import capture_to_store, open_writer
from gemma_scope.testing.tiny import tiny_config, tiny_lm
from gemma_scope.testing.tokenizer import TINY_WORDS

SITES = ("resid_post[0,1]", "z[1]")
PACKING = PackingOptions(seq_len=24, batch_size=4, chunk_documents=8, seed=5)
SHARD_ROWS = 300
ROWS = 2400


def documents(count: int = 120) -> list[str]:
  """Texts of 1 to 60 words."""
  random = np.random.default_rng(0)
  words = [f" {word}" for word in TINY_WORDS.split()]
  return [
    "".join(random.choice(words, random.integers(1, 60))) for _ in range(count)
  ]


def make(lm=None, *, dtype="bfloat16", **pipeline):
  """A harvest and a pipeline; two of the same arguments are equal."""
  lm = lm or tiny_lm(tiny_config(num_layers=2))
  harvest = Harvest(lm, SITES, dtype=dtype)
  texts = Corpus.of(documents())
  packing = pipeline.pop("packing", PACKING)
  return harvest, TokenPipeline(texts, lm.tokenizer, packing, **pipeline)


def capture(path, parts, rows=None, commit_seconds=0.0, progress=None) -> None:
  """Captures into a store, from its start or from where it stands."""
  harvest, pipeline = parts
  with open_writer(path, harvest, pipeline, shard_rows=SHARD_ROWS) as writer:
    capture_to_store(
      harvest,
      pipeline,
      writer,
      rows=rows,
      commit_seconds=commit_seconds,
      progress=progress,
    )


if __name__ == "__main__":
  sys.stdout.write("starting\n")
  sys.stdout.flush()
  wanted = int(sys.argv[2]) if len(sys.argv) > 2 else ROWS

  def tell(rows: int) -> None:
    sys.stdout.write(f"{rows}\n")
    sys.stdout.flush()

  capture(sys.argv[1], make(), rows=wanted, progress=tell)
