"""A model, scanned and unrolled, beside the float64 oracle of its weights."""

import pytest

from gemma_scope.model.build import random_tensors
from gemma_scope.model.convert import tensors_to_gemma
from gemma_scope.testing.tiny import tiny_config
from tests.surgery.stand_ins import DEEP, LAYERS, Double


def make_double(num_layers: int) -> Double:
  config = tiny_config(num_layers=num_layers)
  tensors = random_tensors(config, 0)
  models = {
    kind: tensors_to_gemma(tensors, config, scan=kind == "scanned")
    for kind in ("scanned", "unrolled")
  }
  return Double(num_layers, tensors, models)


@pytest.fixture(scope="session")
def double() -> Double:
  return make_double(LAYERS)


@pytest.fixture(scope="session")
def deep() -> Double:
  return make_double(DEEP)


@pytest.fixture(scope="session")
def model(double):
  return double.models["scanned"]
