"""Tokens to train on and tokens to judge by: every twentieth document."""

from collections.abc import Iterator, Mapping
import dataclasses
import pathlib
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array
import numpy as np
from sweep import Settings

import gemma_scope as gs
from gemma_scope.activations.corpus.corpus import Corpus
from gemma_scope.activations.corpus.documents import Document
from gemma_scope.activations.corpus.options import PackingOptions
from gemma_scope.activations.corpus.packed_batch import PackedBatch
from gemma_scope.activations.corpus.pipeline import TokenPipeline
from gemma_scope.activations.harvest import Harvest
from gemma_scope.activations.rows import RowSource
from gemma_scope.activations.shuffle_buffer import ModelRows
from gemma_scope.sites import Site

HELD_OUT = 20


@dataclasses.dataclass(frozen=True)
class Some:
  """Some documents of a corpus.

  Attributes:
    corpus: All of them.
    index: Which.
    what: What they are for.
  """

  corpus: Corpus
  index: np.ndarray
  what: str

  def __len__(self) -> int:
    return len(self.index)

  def __getitem__(self, index: int, /) -> Document:
    return self.corpus[int(self.index[index])]

  @property
  def origin(self) -> Mapping[str, Any]:
    """The corpus, and which part of it."""
    return {"part": self.what, "of": self.corpus.origin}


class Text:
  """Documents for training and for judging."""

  def __init__(
    self, lm: gs.LanguageModel, paths: list[pathlib.Path], settings: Settings
  ):
    self.lm, self.settings = lm, settings
    self.corpus = Corpus.open(paths)
    every = np.arange(len(self.corpus))
    held = every % HELD_OUT == HELD_OUT - 1
    self._parts = {
      "training": Corpus([Some(self.corpus, every[~held], "training")]),
      "held out": Corpus([Some(self.corpus, every[held], "held out")]),
    }

  def rows(self, site: Site, seed: int = 0) -> RowSource:
    """Shuffled rows of the site from training documents, without end."""
    return ModelRows(
      Harvest(self.lm, [site]),
      self._pipeline("training", None, seed),
      batch_rows=self.settings.batch_rows,
      buffer_rows=self.settings.buffer_rows,
      seed=seed,
    )

  def held_out(self) -> Iterator[PackedBatch]:
    """Batches of held-out documents, once through."""
    yield from self._pipeline("held out", 1, 0)

  def sample(self, site: Site) -> Array:
    """[rows, d] of training documents, for PCA."""
    harvest, found = Harvest(self.lm, [site]), []
    for batch in self._pipeline("training", 1, 1):
      values, counted = harvest(batch)
      found.append(values[site].astype(jnp.float32)[counted])
      if sum(map(len, found)) >= self.settings.sample_rows:
        break
    return jnp.concatenate(found)[: self.settings.sample_rows]

  def _pipeline(
    self, part: str, epochs: int | None, seed: int
  ) -> TokenPipeline:
    options = PackingOptions(
      seq_len=self.settings.seq_len,
      batch_size=self.settings.text_rows,
      seed=seed,
      epochs=epochs,
    )
    return TokenPipeline(self._parts[part], self.lm.tokenizer, options)
