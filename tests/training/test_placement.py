"""Where the state of a run lies."""

import jax
from jax.sharding import PartitionSpec
import pytest

from gemma_scope.training.placement import place
from gemma_scope.training.scaling import measure
from gemma_scope.training.state import begin
from tests.training import runs


@pytest.fixture(scope="module")
def state():
  config = runs.run(runs.group("transcoder", form={"affine_skip": True}))
  return begin(config, measure(runs.rows(), config))


def test_latents_lie_over_the_axis_model(state):
  mesh = jax.make_mesh((2, 4), ("data", "model"))
  placed = place(state, mesh)
  part = placed.groups[0].params["parts"][0]
  moment = placed.groups[0].moments.nu["parts"][0]
  for tree in (part, moment):
    assert tree["w_enc"].sharding.spec == PartitionSpec(None, None, "model")
    assert tree["w_dec"].sharding.spec == PartitionSpec(None, "model", None)
    assert tree["threshold"].sharding.spec == PartitionSpec(None, "model")
    assert tree["skip"].sharding.spec == PartitionSpec()
  assert placed.groups[0].since[0].sharding.spec == PartitionSpec(None, "model")
  assert placed.step.sharding.spec == PartitionSpec()


def test_shapes_are_placed_like_arrays(state):
  for mesh in (None, jax.make_mesh((8,), ("model",))):
    shapes = place(jax.eval_shape(lambda: state), mesh)
    placed = place(state, mesh)
    for a, b in zip(jax.tree.leaves(shapes), jax.tree.leaves(placed)):
      assert (a.shape, a.dtype, a.sharding) == (b.shape, b.dtype, b.sharding)
