"""One run of a small model of each size's shape, shared by several tests."""

import dataclasses
import functools

import numpy as np
import pytest

from gemma_scope.activations.run import forward
from gemma_scope.model.config import GemmaConfig
from gemma_scope.model.convert import tensors_to_gemma
from gemma_scope.surgery import tap
from gemma_scope.testing.oracle import every_site
from tests.goldens import shapes


@dataclasses.dataclass(frozen=True)
class ShapeRun:
  """A small random model with the shape of one size, and all its sites."""

  config: GemmaConfig
  tensors: dict
  tokens: np.ndarray
  mask: np.ndarray
  values: dict


@functools.cache
def run_shape(name, dtype="float32"):
  config = GemmaConfig(size=name, **dataclasses.asdict(shapes.SHAPES[name]))
  tensors = shapes.weights(name)
  model = tensors_to_gemma(tensors, config, np.dtype(dtype))
  tokens, mask = (a.astype(np.int32) for a in shapes.inputs(name))
  tapped = tap(model, every_site(config.num_layers))
  columns = np.arange(tokens.shape[1])
  values = forward(tapped, tokens, mask, columns, "logits")
  return ShapeRun(config, tensors, tokens, mask, values)


@pytest.fixture(scope="session")
def shape_run():
  """A function: name of `shapes.SHAPES` (and dtype) -> `ShapeRun`."""
  return run_shape
