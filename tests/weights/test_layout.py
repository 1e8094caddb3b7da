"""Matrices to canonical arrays and back, against a plain second mapping."""

import numpy as np
import pytest

from gemma_scope import errors
from gemma_scope.testing import checkpoints
from gemma_scope.weights import catalog, checkpoint, layout


def _lazy(array):
  return checkpoint.LazyTensor(array.shape, array.dtype, lambda: array)


@pytest.fixture
def arrays():
  return checkpoints.random_arrays(checkpoints.tiny_sizes())


@pytest.fixture
def matrices(arrays):
  return checkpoints.hugging_face_matrices(arrays)


def _to_canonical(matrices):
  lazy = {name: _lazy(matrix) for name, matrix in matrices.items()}
  return layout.matrices_to_canonical(lazy, "here")


def test_matrices_to_canonical(arrays, matrices):
  found = _to_canonical(matrices)
  assert found.keys() == arrays.keys()
  for name, array in arrays.items():
    assert found[name].shape == array.shape
    assert found[name].dtype == array.dtype
    np.testing.assert_array_equal(found[name].read(), array, err_msg=name)


def test_canonical_to_matrices(arrays, matrices):
  found = layout.canonical_to_matrices(arrays)
  assert found.keys() == matrices.keys()
  for name, matrix in matrices.items():
    np.testing.assert_array_equal(found[name], matrix, err_msg=name)


def test_shapes_are_known_without_reading(arrays, matrices):
  for canonical, array in arrays.items():
    for name, shape in layout.matrix_shapes(canonical, array.shape).items():
      assert matrices[name].shape == shape


def test_query_heads_are_blocks_of_rows(arrays, matrices):
  # The definition itself: head n, width h is row n * H + h of the matrix.
  q = arrays["layer_1/attn/q_einsum/w"]
  row = matrices["layers.1.self_attn.q_proj.weight"][2 * 8 + 5]
  np.testing.assert_array_equal(q[2, :, 5], row)


def test_joins_that_can_be_views_are(matrices):
  found = _to_canonical(matrices)
  matrix = matrices["layers.0.mlp.down_proj.weight"]
  assert np.shares_memory(found["layer_0/mlp/linear"].read(), matrix)
  matrix = matrices["layers.0.self_attn.o_proj.weight"]
  view = found["layer_0/attn/attn_vec_einsum/w"].read()
  assert np.shares_memory(view, matrix)


def test_padded_vocabulary_is_cut(matrices, monkeypatch):
  monkeypatch.setattr(catalog, "VOCABULARY", 100)
  found = _to_canonical(matrices)[checkpoint.EMBEDDING]
  assert found.shape == (100, 64)
  expected = matrices[layout.EMBED_TOKENS][:100]
  np.testing.assert_array_equal(found.read(), expected)


@pytest.mark.parametrize(
  ("name", "match"),
  [
    ("layers.1.self_attn.v_proj.weight", "v_proj.weight is missing"),
    ("embed_tokens.weight", "no usable 'embed_tokens"),
    ("layers.0.self_attn.q_norm.weight", "no usable"),
  ],
)
def test_missing_matrix(matrices, name, match):
  del matrices[name]
  with pytest.raises(errors.CheckpointError, match=match):
    _to_canonical(matrices)


def test_misshapen_matrix(matrices):
  name = "layers.1.mlp.up_proj.weight"
  matrices[name] = matrices[name][:-1]
  with pytest.raises(errors.CheckpointError, match=r"is \(95, 64\), not"):
    _to_canonical(matrices)


def test_unknown_matrix(matrices):
  matrices["layers.0.self_attn.q_proj.bias"] = np.zeros(3, np.float32)
  with pytest.raises(errors.CheckpointError, match=r"unknown tensors .*bias"):
    _to_canonical(matrices)
