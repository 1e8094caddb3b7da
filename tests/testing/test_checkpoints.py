"""The makers of tiny checkpoints make what they say."""

import numpy as np
import pytest
import safetensors.numpy

from gemma_scope.testing import checkpoints
from gemma_scope.weights import checkpoint


def test_random_arrays():
  sizes = checkpoints.tiny_sizes(3)
  arrays = checkpoints.random_arrays(sizes, seed=1, dtype=np.float16)
  assert checkpoint.check_complete(arrays, "here") == sizes
  again = checkpoints.random_arrays(sizes, seed=1, dtype=np.float16)
  other = checkpoints.random_arrays(sizes, seed=2, dtype=np.float16)
  for name, array in arrays.items():
    assert array.dtype == np.float16
    np.testing.assert_array_equal(array, again[name])
    assert not np.array_equal(array, other[name])


def test_no_two_sizes_are_alike():
  s = checkpoints.tiny_sizes()
  numbers = [s.num_heads, s.num_kv_heads, s.head_dim, s.d_model, s.d_ff]
  assert len({*numbers, s.vocabulary, s.num_heads * s.head_dim}) == 7


def test_hugging_face_matrices_compute_the_same():
  """q = x @ W.T equals the einsum of the official package, and so on."""
  arrays = checkpoints.random_arrays(checkpoints.tiny_sizes())
  matrices = checkpoints.hugging_face_matrices(arrays)
  x = np.random.default_rng(0).standard_normal((5, 64)).astype(np.float32)

  def weight(name):
    return matrices[f"layers.1.{name}.weight"]

  q = np.einsum("td,ndh->tnh", x, arrays["layer_1/attn/q_einsum/w"])
  kv = np.einsum("td,ckdh->ctkh", x, arrays["layer_1/attn/kv_einsum/w"])
  out = np.einsum("tnh,nhd->td", q, arrays["layer_1/attn/attn_vec_einsum/w"])
  hidden = np.einsum("td,cfd->ctf", x, arrays["layer_1/mlp/gating_einsum"])
  down = hidden[0] @ arrays["layer_1/mlp/linear"]
  pairs = [
    (x @ weight("self_attn.q_proj").T, q.reshape(5, -1)),
    (x @ weight("self_attn.k_proj").T, kv[0].reshape(5, -1)),
    (x @ weight("self_attn.v_proj").T, kv[1].reshape(5, -1)),
    (q.reshape(5, -1) @ weight("self_attn.o_proj").T, out),
    (x @ weight("mlp.gate_proj").T, hidden[0]),
    (x @ weight("mlp.up_proj").T, hidden[1]),
    (hidden[0] @ weight("mlp.down_proj").T, down),
  ]
  for found, expected in pairs:
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_write_safetensors(tmp_path):
  arrays = checkpoints.random_arrays(checkpoints.tiny_sizes())
  folder = checkpoints.write_safetensors(
    tmp_path, arrays, prefix="model.language_model.", multimodal=True
  )
  found = safetensors.numpy.load_file(folder / "model.safetensors")
  table = found["model.language_model.embed_tokens.weight"]
  assert table.shape == (160 + 64, 64)
  assert any(name.startswith("model.vision_tower.") for name in found)
  assert "lm_head.weight" in found


@pytest.mark.parametrize(
  ("container", "keys"),
  [
    ("nested", {"embedder", "final_norm", "layer_0", "layer_1"}),
    ("state", {"params", "opt_state", "collections", "step"}),
  ],
)
def test_write_orbax_container(tmp_path, container, keys):
  import orbax.checkpoint as ocp

  arrays = checkpoints.random_arrays(checkpoints.tiny_sizes())
  path = checkpoints.write_orbax_container(tmp_path / "m", arrays, container)
  with ocp.StandardCheckpointer() as checkpointer:
    tree = checkpointer.metadata(path).item_metadata.tree
  assert set(tree) == keys


def test_flat_and_stacked_names():
  arrays = checkpoints.random_arrays(checkpoints.tiny_sizes(8))
  flat = checkpoints._flat(arrays)
  assert list(flat["transformer/layer_0/mlp/linear"]) == ["w"]
  assert list(flat["transformer/layer_7/attn/_key_norm"]) == ["scale"]
  stacked = checkpoints._stacked(arrays)
  key = "transformer/stacked_layers/attention_type_{}/attn/q_einsum"
  assert stacked[key.format(0)]["w"].shape == (2, 4, 64, 8)
  assert stacked[key.format(5)]["w"].shape == (1, 4, 64, 8)
