"""A harvest against single captures of the same tokens."""

import jax
from jax.sharding import Mesh
import numpy as np
import pytest

import gemma_scope as gs
from gemma_scope import testing
from gemma_scope.activations import harvest as harvest_lib
from gemma_scope.activations.corpus.packed_batch import PackedBatch
from gemma_scope.activations.harvest import Harvest
from gemma_scope.errors import ConfigError, SiteError, TextError
from gemma_scope.model.build import random_tensors
from gemma_scope.model.convert import tensors_to_gemma
from gemma_scope.sites import Site
from gemma_scope.testing.tiny import tiny_config

SITES = ["resid_post[1]", "mlp_in[:4]", "z[2]", "mlp_act[3]", "final_norm"]
LENGTHS = ((11, 5, 8), (24,), (3, 3, 3, 3, 9), (20, 2))
SEQ = 24


def packed(lengths=LENGTHS, seed=0):
  rng = np.random.default_rng(seed)
  ids = np.zeros((len(lengths), SEQ), np.int32)
  segments = np.zeros_like(ids)
  for row, pieces in enumerate(lengths):
    ends = np.cumsum(pieces)
    for number, (end, length) in enumerate(zip(ends, pieces), start=1):
      ids[row, end - length : end] = [2, *rng.integers(108, 512, length - 1)]
      segments[row, end - length : end] = number
  return PackedBatch(ids, segments, (segments > 0) & (ids != 2))


def pieces(batch):
  """Yields (row, columns) of every piece."""
  for row, segments in enumerate(batch.segment_ids):
    for number in range(1, segments.max() + 1):
      yield row, np.flatnonzero(segments == number)


@pytest.fixture(scope="module")
def lm():
  return testing.tiny_lm(tiny_config(num_layers=7, window=4))


@pytest.fixture(scope="module")
def harvested(lm):
  return Harvest(lm, SITES)(packed())


def test_rows_that_count_are_collected(lm, harvested):
  values, counted = harvested
  batches = [packed(), packed()]
  found = Harvest(lm, SITES).collect(batches)
  assert list(found) == list(values)
  for site, rows in values.items():
    once = np.asarray(rows)[np.asarray(counted)]
    np.testing.assert_array_equal(found[site], np.concatenate([once, once]))


def lowered(harvest):
  ids = np.zeros((4, SEQ), np.int32)
  return harvest._forward.lower(harvest._leaves, ids, ids, ids > 0)


def on_mesh(lm, data, model):
  devices = np.array(jax.devices()[: data * model]).reshape(data, model)
  mesh = Mesh(devices, ("data", "model"))
  tensors = random_tensors(lm.config, seed=0)
  return lm.replace(tensors_to_gemma(tensors, lm.config, mesh=mesh))


def test_packed_pieces_have_the_values_they_have_alone(lm, harvested):
  values, _ = harvested
  batch = packed()
  places = list(pieces(batch))
  alone = gs.capture(lm, [batch.ids[row, at] for row, at in places], SITES)
  for site, named in alone.items():
    wanted = np.asarray(named.unwrap(*site.info.axes))
    wanted = wanted.reshape(*wanted.shape[:2], -1)
    for want, (row, at) in zip(wanted, places):
      have = np.asarray(values[site])[row * SEQ + at]
      np.testing.assert_allclose(
        have, want[: len(at)], atol=2e-5, err_msg=str(site)
      )


def test_counted_rows_lie_beside_their_values(harvested):
  values, counted = harvested
  np.testing.assert_array_equal(counted, packed().counted.ravel())
  assert {len(v) for v in values.values()} == {len(counted)}


def test_widths_are_known_before_a_run(lm, harvested):
  harvest = Harvest(lm, SITES)
  values, _ = harvested
  assert harvest.sites == tuple(sorted(values))
  assert harvest.widths == {s: v.shape[1] for s, v in values.items()}
  assert harvest.widths[Site("z", 2)] == 4 * 16
  assert harvest.widths[Site("mlp_act", 3)] == 48


def test_no_layer_runs_past_the_last_site_and_one_program_serves(lm):
  harvest = Harvest(lm, ["resid_post[0]", "z[2]"])
  for seed in range(3):
    harvest(packed(seed=seed))
  assert harvest._forward._cache_size() == 1
  few = lowered(harvest).cost_analysis()["flops"]
  deep = lowered(Harvest(lm, "final_norm"))
  assert few < 0.5 * deep.cost_analysis()["flops"]  # 3 of 7 layers
  products = [t for t in deep.as_text().splitlines() if "dot_general" in t]
  assert products
  assert not any(f"x{lm.config.vocab_size}x" in line for line in products)


def test_rows_come_in_the_dtype_asked_for(lm, harvested):
  values, _ = Harvest(lm, "resid_post[1]", dtype="bfloat16")(packed())
  ((site, found),) = values.items()
  assert found.dtype == "bfloat16"
  wanted = harvested[0][site].astype("bfloat16")
  np.testing.assert_array_equal(found, wanted)
  with pytest.raises(ConfigError, match="float16"):
    Harvest(lm, "resid_post[1]", dtype="float16")


@pytest.mark.parametrize(("data", "model"), [(2, 4), (4, 2)])
def test_a_mesh_gives_the_same_rows_and_keeps_them_apart(
  lm, harvested, data, model
):
  harvest = Harvest(on_mesh(lm, data, model), SITES)
  values, counted = harvest(packed())
  np.testing.assert_array_equal(counted, harvested[1])
  assert counted.sharding.spec[0] == "data"
  for site, value in values.items():
    want = np.asarray(harvested[0][site])
    np.testing.assert_allclose(value, want, atol=1e-5 * np.abs(want).max())
    assert value.sharding.is_equivalent_to(harvest.sharding(site), 2), site
    assert value.sharding.spec[0] == "data", site
  assert values[Site("z", 2)].sharding.spec[1] == "model"


def test_a_batch_that_the_mesh_cannot_share_is_refused(lm):
  harvest = Harvest(on_mesh(lm, 8, 1), "resid_post[0]")
  assert harvest.batch_multiple == 8
  with pytest.raises(TextError, match="8 parts of the mesh"):
    harvest(packed())


@pytest.mark.parametrize("site", ["pattern[0]", "logits"])
def test_sites_without_a_row_a_token_are_refused(lm, site):
  with pytest.raises(SiteError, match="one row of moderate width"):
    Harvest(lm, site)
  with pytest.raises(SiteError, match="no site to harvest"):
    Harvest(lm, [])


def test_the_mesh_is_the_models(lm):
  assert harvest_lib._mesh_of(lm.model) is None
  mesh = Harvest(on_mesh(lm, 2, 2), "embed").mesh
  assert mesh is not None
  assert dict(mesh.shape) == {"data": 2, "model": 2}
