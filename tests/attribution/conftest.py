"""A model of two layers, and its slow float64 double to differentiate."""

from collections.abc import Mapping
import dataclasses

import numpy as np
import pytest

from gemma_scope import testing
from gemma_scope.model.build import random_tensors
from gemma_scope.model.config import GemmaConfig
from gemma_scope.model.language_model import LanguageModel
from gemma_scope.sites import Site
from gemma_scope.testing import oracle
from gemma_scope.testing.tiny import tiny_config

STEP = 1e-5  # of finite differences, in float64


@dataclasses.dataclass(frozen=True)
class Double:
  """A model and the NumPy oracle of the same weights.

  Attributes:
    lm: The model.
    tensors: Its canonical tensors.
    ids: [seq] a prompt longer than the window.
  """

  lm: LanguageModel
  tensors: Mapping[str, np.ndarray]
  ids: np.ndarray

  @property
  def config(self) -> GemmaConfig:
    return self.lm.config

  def site(self, site: Site, ids: np.ndarray | None = None) -> np.ndarray:
    """The oracle's value of a site, without `batch`."""
    ids = self.ids if ids is None else ids
    return oracle.oracle_forward(self.tensors, self.config, ids)[site]

  def value(
    self, target: Mapping[int, float], edits=None, *, position=-1, ids=None
  ) -> float:
    """The weighted sum of logits `target` under edits."""
    ids = self.ids if ids is None else ids
    seen = oracle.oracle_forward(self.tensors, self.config, ids, edits)
    logits = seen[Site("logits")][position]
    return float(sum(w * logits[i] for i, w in target.items()))

  def slope(
    self,
    target: Mapping[int, float],
    site: Site,
    direction: np.ndarray,
    *,
    baseline: np.ndarray | float = 0.0,
    at: float = 1.0,
    position: int = -1,
  ) -> float:
    """d/dt of the target where the site is b + (at + t direction)(x - b)."""

    def moved(t: float) -> float:
      def edit(x: np.ndarray) -> np.ndarray:
        return baseline + (at + t * direction) * (x - baseline)

      return self.value(target, {site: edit}, position=position)

    return (moved(STEP) - moved(-STEP)) / (2 * STEP)


@pytest.fixture(scope="session")
def double() -> Double:
  return make_double(tiny_config(num_layers=2, window=4))


@pytest.fixture(scope="session")
def scanned() -> Double:
  """Seven layers: a scanned period and one more, the sixth layer global."""
  return make_double(tiny_config(num_layers=7, window=4))


def make_double(config: GemmaConfig) -> Double:
  lm = testing.tiny_lm(config)
  ids = np.asarray(lm.tokenizer.encode(" the capital of France is"))
  return Double(lm, random_tensors(config, seed=0), ids)
