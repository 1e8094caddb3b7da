"""Buffers of rows: what is put there comes back; shards send no messages."""

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import numpy as np
import pytest

from gemma_scope.activations import row_buffers
from gemma_scope.sites import Site

WIDTHS = {Site("z", 0): 8, Site("resid_post", 1): 6}
PARTS, SLOTS, ROWS = 8, 10, 4


def layouts(data, model):
  if not data:
    return dict.fromkeys(WIDTHS)
  devices = np.array(jax.devices()[: data * model]).reshape(data, model)
  mesh = Mesh(devices, ("data", "model"))
  specs = (PartitionSpec("data", "model"), PartitionSpec("data"))
  return {s: NamedSharding(mesh, spec) for s, spec in zip(WIDTHS, specs)}


def case(seed=0):
  rng = np.random.default_rng(seed)
  values = {
    site: rng.normal(size=(PARTS * ROWS, width)).astype(np.float32)
    for site, width in WIDTHS.items()
  }
  slots = np.stack([rng.permutation(SLOTS)[:ROWS] for _ in range(PARTS)])
  kept = rng.random(slots.shape) < 0.6
  slots = np.where(kept, slots, SLOTS + np.arange(ROWS)[None])
  return values, slots.astype(np.int32), kept


@pytest.mark.parametrize(("data", "model"), [(0, 0), (8, 1), (2, 4)])
def test_rows_come_back_and_those_without_a_slot_are_dropped(data, model):
  where = layouts(data, model)
  kernels = row_buffers.Kernels(where)
  buffers = row_buffers.empty(WIDTHS, (PARTS, SLOTS), "float32", where)
  expected = {s: np.zeros((PARTS, SLOTS, w)) for s, w in WIDTHS.items()}
  for seed in range(3):
    values, slots, kept = case(seed)
    for site, rows in values.items():
      rows = rows.reshape(PARTS, ROWS, -1)
      for part in range(PARTS):
        at = slots[part, kept[part]]
        expected[site][part, at] = rows[part, kept[part]]
    placed = values
    if data:
      placed = {s: jax.device_put(v, where[s]) for s, v in values.items()}
    buffers = kernels.scatter(buffers, placed, kernels.place(slots))
  for site, array in expected.items():
    np.testing.assert_array_equal(buffers[site], array.astype(np.float32))
  rng = np.random.default_rng(9)
  slots = rng.integers(0, SLOTS, (PARTS, 3)).astype(np.int32)
  found = kernels.gather(buffers, kernels.place(slots))
  places = (np.arange(PARTS)[:, None] * SLOTS + slots).ravel()
  anywhere = kernels.gather_anywhere(buffers, places)
  for site, array in expected.items():
    want = array[np.arange(PARTS)[:, None], slots].reshape(PARTS * 3, -1)
    np.testing.assert_array_equal(found[site], want.astype(np.float32))
    np.testing.assert_array_equal(anywhere[site], want.astype(np.float32))
    if data:
      for array in (found[site], anywhere[site]):
        assert array.sharding.is_equivalent_to(where[site], 2)


def test_buffers_are_changed_in_place():
  kernels = row_buffers.Kernels(layouts(0, 0))
  before = row_buffers.empty(WIDTHS, (PARTS, SLOTS), "bfloat16", layouts(0, 0))
  values, slots, _ = case()
  values = {s: v.astype("bfloat16") for s, v in values.items()}
  kernels.scatter(before, values, slots)
  assert all(array.is_deleted() for array in before.values())


@pytest.mark.parametrize(("data", "model"), [(4, 2), (2, 4), (8, 1)])
@pytest.mark.parametrize("name", ["scatter", "gather"])
def test_shards_keep_their_rows(name, data, model):
  """The compiled programs of a mesh have no collectives."""
  where = layouts(data, model)
  kernels = row_buffers.Kernels(where)
  buffers = row_buffers.empty(WIDTHS, (PARTS, SLOTS), "float32", where)
  values, slots, _ = case()
  placed = {s: jax.device_put(v, where[s]) for s, v in values.items()}
  given = {"scatter": (buffers, placed), "gather": (buffers,)}[name]
  lowered = getattr(kernels, name).lower(*given, kernels.place(slots))
  program = lowered.compile().as_text()
  assert "scatter" in program or "gather" in program
  for word in ("all-gather", "all-reduce", "all-to-all", "collective-permute"):
    assert word not in program
