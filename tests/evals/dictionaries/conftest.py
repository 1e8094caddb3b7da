"""A tiny model, packed rows, one dictionary of every kind, one evaluation."""

import dataclasses

import numpy as np
import pytest

from gemma_scope import testing
from gemma_scope.activations.corpus.packed_batch import PackedBatch
from gemma_scope.dictionaries import with_prefixes
from gemma_scope.evals.dictionaries import METRICS, evaluate
from gemma_scope.evals.dictionaries.evaluation import Evaluation
from gemma_scope.model.language_model import LanguageModel
from gemma_scope.testing import dictionaries as make
from gemma_scope.testing.tiny import tiny_config
from tests.evals.dictionaries.oracle import Oracle

CONFIG = tiny_config(num_layers=4)
KINDS = {
  "sae": lambda: with_prefixes(make.random_sae(layer=2), (8, 32)),
  "sae top_k of z": lambda: make.random_sae("top_k", site="z", d=64, layer=1),
  "affine transcoder": lambda: with_prefixes(
    make.random_transcoder(affine=True, layer=1), (16,)
  ),
  "affine clt": lambda: with_prefixes(
    make.random_cross_layer(affine=True, count=2), (16,)
  ),
  "weakly causal crosscoder": lambda: make.random_cross_layer(
    kind="crosscoder", count=2
  ),
  "crosscoder": lambda: with_prefixes(make.random_crosscoder(count=2), (16,)),
}


def packed_rows() -> PackedBatch:
  """Two documents and padding, one long document, one that ends with EOS."""
  rng = np.random.default_rng(0)
  ids = rng.integers(110, 512, (3, 16)).astype(np.int32)
  segments = np.ones((3, 16), np.int32)
  ids[:, 0] = 2
  ids[0, 7:9] = 1, 2
  segments[0, 8:13] = 2
  ids[0, 13:] = segments[0, 13:] = 0
  ids[2, 11] = 1
  ids[2, 12:] = segments[2, 12:] = 0
  counted = (segments != 0) & ~np.isin(ids, (1, 2))
  return PackedBatch(ids, segments, counted)


@dataclasses.dataclass(frozen=True)
class Case:
  """What was found, and the oracle for each dictionary."""

  lm: LanguageModel
  batch: PackedBatch
  dictionaries: dict
  found: Evaluation
  oracles: dict[str, Oracle]


@pytest.fixture(scope="package")
def case() -> Case:
  lm, batch = testing.tiny_lm(CONFIG), packed_rows()
  dictionaries = {name: make() for name, make in KINDS.items()}
  found = evaluate(lm, dictionaries, [batch], metrics=METRICS)
  oracles = {
    name: Oracle(CONFIG, d, batch.ids, batch.segment_ids)
    for name, d in dictionaries.items()
  }
  return Case(lm, batch, dictionaries, found, oracles)
