"""Canonical shapes, and what is refused."""

import numpy as np
import pytest

from gemma_scope import errors
from gemma_scope.testing import checkpoints
from gemma_scope.weights import checkpoint


def test_sizes_are_inferred_from_shapes():
  sizes = checkpoints.tiny_sizes(7)
  arrays = checkpoints.random_arrays(sizes)
  assert checkpoint.check_complete(arrays, "here") == sizes
  assert checkpoint.num_layers(arrays) == 7


def test_missing_tensor_is_named():
  arrays = checkpoints.random_arrays(checkpoints.tiny_sizes())
  del arrays["layer_1/mlp/linear"]
  with pytest.raises(errors.CheckpointError, match="missing layer_1/mlp/lin"):
    checkpoint.check_complete(arrays, "here")


def test_missing_layer_in_the_middle_is_named():
  arrays = checkpoints.random_arrays(checkpoints.tiny_sizes(3))
  rest = {n: a for n, a in arrays.items() if not n.startswith("layer_1/")}
  with pytest.raises(errors.CheckpointError, match="missing layer_1/"):
    checkpoint.check_complete(rest, "here")


def test_unknown_tensor_is_named():
  arrays = checkpoints.random_arrays(checkpoints.tiny_sizes())
  arrays["layer_0/attn/lora"] = np.zeros(3)
  with pytest.raises(errors.CheckpointError, match="unknown layer_0/attn/lo"):
    checkpoint.check_complete(arrays, "here")


def test_misshapen_tensor_is_named():
  arrays = checkpoints.random_arrays(checkpoints.tiny_sizes())
  arrays["layer_1/attn/q_einsum/w"] = np.zeros((4, 8, 64))
  with pytest.raises(errors.CheckpointError, match=r"layer_1/attn/q_einsum/w"):
    checkpoint.check_complete(arrays, "here")


def test_something_else_entirely():
  with pytest.raises(errors.CheckpointError, match="no complete Gemma 3"):
    checkpoint.infer_sizes({"conv1/kernel": np.zeros(3)}, "here")


def test_long_lists_are_shortened():
  assert checkpoint.shortened([]) == "none"
  assert checkpoint.shortened(["a", "b"]) == "a, b"
  assert checkpoint.shortened(list("abcde")) == "a, b, c and 2 more"
