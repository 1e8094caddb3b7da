"""Names between Flax containers and canonical ones."""

import pytest

from gemma_scope.weights import flax_tree


def test_canonical_to_flax_tree():
  names = ["final_norm/scale", "layer_0/attn/q_einsum/w", "layer_0/mlp/linear"]
  assert flax_tree.canonical_to_flax_tree(dict(zip(names, "abc"))) == {
    "final_norm": {"scale": "a"},
    "layer_0": {"attn": {"q_einsum": {"w": "b"}}, "mlp": {"linear": "c"}},
  }


@pytest.mark.parametrize(
  ("tree", "name", "keys"),
  [
    (
      {"layer_1": {"mlp": {"linear": 1}}},
      "layer_1/mlp/linear",
      ("layer_1", "mlp", "linear"),
    ),
    (
      {"layer_1": {"mlp": {"gating_einsum": {"w": 1}}}},
      "layer_1/mlp/gating_einsum",
      ("layer_1", "mlp", "gating_einsum", "w"),
    ),
    (
      {"transformer/layer_0/attn/_key_norm": {"scale": 1}},
      "layer_0/attn/_key_norm/scale",
      ("transformer/layer_0/attn/_key_norm", "scale"),
    ),
    (
      {"params": {"final_norm": {"scale": 1}}, "step": 2, "opt_state": [3]},
      "final_norm/scale",
      ("params", "final_norm", "scale"),
    ),
    (
      {"params": {"transformer": {"final_norm": {"scale": 1}}}},
      "final_norm/scale",
      ("params", "transformer", "final_norm", "scale"),
    ),
  ],
)
def test_containers(tree, name, keys):
  assert flax_tree.flax_tree_to_leaves(tree) == {name: (keys, 1)}


def test_vision_is_skipped():
  tree = {
    "vision_encoder": {"a": 1},
    "embedder": {"mm_soft_embedding_norm": {"scale": 1}},
    "SigLiPFromPatches_0/head": {"kernel": 1},
  }
  assert flax_tree.flax_tree_to_leaves(tree) == {}


def test_unstack_names_with_a_cut_off_last_period():
  # Eight layers in periods of six: two places have a second layer.
  lengths = {
    f"stacked_layers/attention_type_{k}/mlp/linear": 2 if k < 2 else 1
    for k in range(6)
  }
  places = flax_tree.unstack_names({"final_norm/scale": 64, **lengths})
  assert len(places) == 1 + 8
  assert places["final_norm/scale"] == ("final_norm/scale", None)
  first = "stacked_layers/attention_type_0/mlp/linear"
  assert places["layer_0/mlp/linear"] == (first, 0)
  assert places["layer_6/mlp/linear"] == (first, 1)
  last = "stacked_layers/attention_type_5/mlp/linear"
  assert places["layer_5/mlp/linear"] == (last, 0)
