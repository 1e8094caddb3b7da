"""A tiny model, prompts of several lengths, and the NumPy oracle for both."""

from collections.abc import Mapping
import dataclasses

import numpy as np
import pytest

from gemma_scope import testing
from gemma_scope.attribution.objectives import logit_difference
from gemma_scope.evals.groups import Group, to_groups
from gemma_scope.model.build import random_tensors
from gemma_scope.model.language_model import LanguageModel
from gemma_scope.sites import Site
from gemma_scope.testing import oracle
from gemma_scope.testing.tiny import tiny_config

PROMPTS = (
  " the capital of France is",
  " Mary and John gave a drink to Mary in the city",
  " the capital of Rome is in",
  " John gave Mary a drink in the",
)


@dataclasses.dataclass(frozen=True)
class Tiny:
  """A model of two layers and the same weights for the oracle."""

  lm: LanguageModel
  tensors: Mapping[str, np.ndarray]

  def value(self, ids, *, embed=None, column=-1) -> float:
    """logit(" Paris") - logit(" Rome"), by NumPy in float64.

    Args:
      ids: [seq] token ids.
      embed: [seq, embedding] what stands at `embed`; as it is if not given.
      column: Where the logits are read.
    """
    edits = None if embed is None else {Site("embed"): lambda _: embed}
    seen = oracle.oracle_forward(self.tensors, self.lm.config, ids, edits)
    row = seen[Site("logits")][column]
    paris, rome = (self.lm.tokenizer.token_id(t) for t in (" Paris", " Rome"))
    return float(row[paris] - row[rome])

  def embedding(self, ids) -> np.ndarray:
    """[seq, embedding] what stands at `embed`."""
    seen = oracle.oracle_forward(self.tensors, self.lm.config, np.asarray(ids))
    return seen[Site("embed")]


@pytest.fixture(scope="session")
def tiny() -> Tiny:
  config = tiny_config(num_layers=2, window=4)
  return Tiny(testing.tiny_lm(config), random_tensors(config, seed=0))


@pytest.fixture(scope="session")
def target():
  return logit_difference(" Paris", " Rome")


@pytest.fixture(scope="session")
def groups(tiny, target) -> tuple[Group, ...]:
  return to_groups(tiny.lm, list(PROMPTS), target)[1]
