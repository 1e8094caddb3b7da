"""Tensors to models and back, exactly; with a mesh, straight into shards."""

import dataclasses

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from penzai import pz
import pytest

from gemma_scope.activations.run import forward
from gemma_scope.model import sharding
from gemma_scope.model.build import random_tensors
from gemma_scope.model.convert import gemma_to_tensors, tensors_to_gemma
from gemma_scope.sites import Site
from gemma_scope.surgery import offset, tap
from gemma_scope.testing import oracle
from gemma_scope.testing.tiny import tiny_config
from gemma_scope.weights.checkpoint import LazyTensor

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


@pytest.fixture(scope="module")
def config():
  return tiny_config(num_layers=13)


@pytest.fixture(scope="module")
def tensors(config):
  return random_tensors(config, 0)


def lazy(tensors, reads):
  """The same tensors, which write down their names when they are read."""

  def reader(name, value):
    def read():
      reads.append(name)
      return value

    return LazyTensor(value.shape, value.dtype, read)

  return {name: reader(name, value) for name, value in tensors.items()}


def mesh(data, model):
  devices = np.array(jax.devices("cpu")).reshape(data, model)
  return jax.sharding.Mesh(devices, ("data", "model"))


def named_leaves(model):
  return jax.tree.leaves(model, is_leaf=pz.nx.is_namedarray)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("scan", [True, False])
def test_round_trips_are_bit_exact(config, tensors, scan, dtype):
  dtype = jnp.dtype(dtype)
  back = gemma_to_tensors(tensors_to_gemma(tensors, config, dtype, scan=scan))
  assert back.keys() == tensors.keys()
  for name, value in tensors.items():
    assert back[name].dtype == dtype
    np.testing.assert_array_equal(back[name], value.astype(dtype))


def test_surgery_leaves_no_trace_in_the_tensors(config, tensors):
  model = tensors_to_gemma(tensors, config)
  sites = oracle.every_site(config.num_layers)
  back = gemma_to_tensors(tap(offset(model, sites), sites))
  assert back.keys() == tensors.keys()
  for name, value in tensors.items():
    np.testing.assert_array_equal(back[name], value)


@pytest.mark.parametrize(
  ("scan", "devices"), [(True, None), (False, None), (True, (2, 4))]
)
def test_tensors_are_read_once_and_progress_is_told(
  config, tensors, scan, devices
):
  """Decoding a quantised tensor for every shard anew would take minutes."""
  reads, told = [], []
  tensors_to_gemma(
    lazy(tensors, reads),
    config,
    mesh=mesh(*devices) if devices else None,
    scan=scan,
    progress=lambda label, done: told.append((label, done)),
  )
  assert sorted(reads) == sorted(tensors)
  assert {label for label, _ in told} == {"Loading weights"}
  fractions = [done for _, done in told]
  assert fractions == sorted(fractions)
  assert fractions[-1] == 1


@pytest.mark.parametrize("scan", [True, False])
@pytest.mark.parametrize("shape", [(2, 4), (1, 8), (4, 2)])
def test_with_a_mesh_every_array_lies_in_its_shards(
  config, tensors, shape, scan
):
  model = tensors_to_gemma(
    tensors, config, jnp.bfloat16, mesh=mesh(*shape), scan=scan
  )
  whole = tensors_to_gemma(tensors, config, jnp.bfloat16, scan=scan)
  sharded = 0
  for leaf, expected in zip(named_leaves(model), named_leaves(whole)):
    names = tuple(leaf.named_axes)
    sizes = tuple(leaf.named_shape.values())
    wanted = sharding.parameter_sharding(mesh(*shape), names, sizes)
    assert leaf.data_array.sharding == wanted
    assert leaf.dtype == BFLOAT16
    for piece in leaf.data_array.addressable_shards:
      assert piece.data.shape == wanted.shard_shape(sizes)
    np.testing.assert_array_equal(leaf.data_array, expected.data_array)
    sharded += not wanted.is_fully_replicated
  assert sharded > 10


def test_each_device_holds_its_part_of_the_model(config, tensors):
  """Head scales and two key/value heads among four shards stay whole."""
  model = tensors_to_gemma(tensors, config, mesh=mesh(2, 4))
  assert config.num_kv_heads < 4
  table = model.table.data_array
  assert {s.data.shape for s in table.addressable_shards} == {(128, 16)}
  held = sum(
    leaf.data_array.addressable_shards[0].data.size
    for leaf in named_leaves(model)
  )
  assert held < config.num_parameters / 5


def test_of_a_mapped_file_shards_alone_are_read(config, tensors):
  """A host touches the pages of its own devices' parts and no others."""
  taken = []

  class Mapped(np.ndarray):
    def __getitem__(self, index):
      part = super().__getitem__(index)
      taken.append(part.shape)
      return part

  name = "embedder/input_embedding"
  mapped = {**tensors, name: tensors[name].view(Mapped)}
  model = tensors_to_gemma(mapped, config, mesh=mesh(2, 4))
  assert taken == [(config.vocab_size // 4, config.d_model // 2)] * 8
  np.testing.assert_array_equal(model.table.data_array, tensors[name])


@pytest.mark.parametrize("shape", [(2, 4), (8, 1)])
def test_a_sharded_model_gives_the_same_numbers(config, tensors, shape):
  if shape == (8, 1):
    config = dataclasses.replace(config, num_layers=2)
    names = set(random_tensors(config, 0))
    tensors = {n: v for n, v in tensors.items() if n in names}
  tokens = np.random.default_rng(0).integers(2, 512, (2, 16)).astype(np.int32)
  sites = [Site("z", 1), Site("resid_post", config.num_layers - 1)]
  sites += [Site("logits")]
  model = tap(tensors_to_gemma(tensors, config, mesh=mesh(*shape)), sites)
  columns = np.arange(16)
  found = forward(model, tokens, np.ones_like(tokens), columns, "logits")
  for row in range(2):
    expected = oracle.oracle_forward(tensors, config, tokens[row])
    errors = oracle.relative_errors(found, expected, row)
    assert max(errors.values()) < 1e-5
