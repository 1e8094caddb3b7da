"""The table of mesh axes, and what happens where sizes do not divide."""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
import numpy as np
from penzai import pz
import pytest

from gemma_scope import axes
from gemma_scope.model import sharding


def mesh(data, model, names=("data", "model")):
  devices = np.array(jax.devices("cpu")[: data * model])
  return jax.sharding.Mesh(devices.reshape(data, model), names)


@pytest.mark.parametrize(
  ("names", "shape", "spec"),
  [
    (("vocabulary", "embedding"), (512, 32), P("model", "data")),
    (
      ("layer", "embedding", "heads", "projection"),
      (3, 32, 4, 16),
      P(None, "data", "model", None),
    ),
    # One key/value head cannot be split among four.
    (
      ("embedding", "key_value", "kv_heads", "projection"),
      (32, 2, 1, 16),
      P("data", None, None, None),
    ),
    (("embedding",), (33,), P(None)),
    (("projection",), (16,), P(None)),
    # Both axes would take `model`: the first has it.
    (("heads", "neurons"), (4, 8), P("model", None)),
    (("vocabulary", "neurons"), (3, 8), P(None, "model")),
  ],
)
def test_parameters(names, shape, spec):
  found = sharding.parameter_sharding(mesh(2, 4), names, shape)
  assert found.spec == spec
  found.shard_shape(shape)  # raises where the shards would be uneven


def test_activations_are_split_by_batch():
  names = (axes.BATCH, axes.SEQ, axes.EMBEDDING)
  found = sharding.activation_sharding(mesh(2, 4), names, (4, 7, 32))
  assert found.spec == P("data", None, None)
  found = sharding.activation_sharding(mesh(2, 4), names, (3, 7, 32))
  assert found.spec == P(None, None, None)


def test_a_mesh_need_not_have_both_axes():
  only_data = mesh(8, 1, ("data", "other"))
  found = sharding.parameter_sharding(
    only_data, ("vocabulary", "embedding"), (512, 32)
  )
  assert found.spec == P(None, "data")


def test_rules_name_known_axes():
  rules = {**sharding.PARAMETER_RULES, **sharding.ACTIVATION_RULES}
  assert set(rules) <= set(axes.GLOSSARY)
  assert set(rules.values()) == {sharding.DATA, sharding.MODEL}


def test_positions_are_split_where_rows_are_too_few():
  names = (axes.BATCH, axes.SEQ, axes.EMBEDDING)
  found = sharding.activation_sharding(mesh(2, 4), names, (1, 8, 32))
  assert found.spec == P(None, "data", None)


def test_an_activation_is_laid_out_by_its_axes():
  value = pz.nx.wrap(jnp.ones((4, 7, 8, 3)), "batch", "seq", "heads", "extra")
  found = jax.jit(lambda v: sharding.sharded(v, mesh(2, 4)))(value)
  assert tuple(found.named_axes) == ("batch", "seq", "heads", "extra")
  expected = jax.sharding.NamedSharding(mesh(2, 4), P("data", None, "model"))
  assert found.data_array.sharding.is_equivalent_to(expected, 4)
