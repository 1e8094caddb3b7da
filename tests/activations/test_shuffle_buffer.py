"""Rows from the model: each once, as a harvest gives them, bit for bit."""

import collections
import itertools

import jax
from jax.sharding import Mesh
import numpy as np
import pytest

from gemma_scope import testing
from gemma_scope.activations.corpus.corpus import Corpus
from gemma_scope.activations.corpus.options import PackingOptions
from gemma_scope.activations.corpus.pipeline import TokenPipeline
from gemma_scope.activations.harvest import Harvest
from gemma_scope.activations.rows import RowSource
from gemma_scope.activations.shuffle_buffer import ModelRows
from gemma_scope.errors import ConfigError
from gemma_scope.model.build import random_tensors
from gemma_scope.model.convert import tensors_to_gemma
from gemma_scope.sites import Site
from gemma_scope.testing.tiny import tiny_config

SITES = ["resid_post[0]", "z[1]", "mlp_act[1]"]
LENGTHS = np.random.default_rng(1).integers(1, 50, 64)
LENGTHS[-1] += -LENGTHS.sum() % 16  # a whole number of batches
OPTIONS = PackingOptions(
  seq_len=16, batch_size=8, chunk_documents=16, seed=3, epochs=1, min_piece=2
)


@pytest.fixture(scope="module")
def lm():
  return testing.tiny_lm(tiny_config(num_layers=2, window=4))


@pytest.fixture(scope="module")
def harvest(lm):
  return Harvest(lm, SITES)


@pytest.fixture(scope="module")
def direct(lm, harvest):
  """The rows of one epoch that count, in the order of the text."""
  found = {site: [] for site in harvest.sites}
  for batch in pipeline(lm):
    values, counted = harvest(batch)
    for site, rows in values.items():
      found[site].append(np.asarray(rows)[np.asarray(counted)])
  return {site: np.concatenate(rows) for site, rows in found.items()}


def pipeline(lm, **changes):
  rng = np.random.default_rng(0)
  documents = [rng.integers(108, 512, n) for n in LENGTHS]
  options = PackingOptions(**{**vars(OPTIONS), **changes})
  return TokenPipeline(Corpus.of(documents), lm.tokenizer, options)


def source(lm, harvest, *, epochs=1, buffer_rows=300, **more):
  text = pipeline(lm, epochs=epochs)
  return ModelRows(
    harvest, text, batch_rows=16, buffer_rows=buffer_rows, **more
  )


def fingerprints(batch):
  """One string a token: its rows at all sites, so that they stay together."""
  rows = [np.asarray(batch[site]) for site in sorted(batch)]
  return [row.tobytes() for row in np.concatenate(rows, axis=1)]


@pytest.mark.parametrize("parts", [1, 4])
def test_every_row_comes_once(lm, harvest, direct, parts):
  batches = list(source(lm, harvest, parts=parts))
  found = [mark for batch in batches for mark in fingerprints(batch)]
  known = fingerprints(direct)
  assert len(known) == sum(LENGTHS) == 16 * len(batches)
  assert collections.Counter(found) == collections.Counter(known)
  places = [known.index(mark) for mark in found[:64]]
  assert np.median(np.abs(np.diff(places))) > 16


def test_only_so_much_text_is_read_ahead(lm, harvest):
  rows = source(lm, harvest, epochs=None)
  for _ in range(40):
    next(rows)
    assert rows._slots.live.sum() <= 300
    assert rows._slots.live.sum() >= 300 // 2 - 16


@pytest.mark.parametrize("taken", [0, 1, 9, 40, 60])
@pytest.mark.parametrize("parts", [1, 4])
def test_restored_it_goes_on_bit_for_bit(lm, harvest, taken, parts):
  first = source(lm, harvest, epochs=2, parts=parts)
  list(itertools.islice(first, taken))
  state = first.state()
  expected = list(itertools.islice(first, 50))
  again = source(lm, harvest, epochs=2, parts=parts)
  next(again)
  again.restore(state)
  found = list(itertools.islice(again, 50))
  assert len(found) == len(expected) > 30
  for have, want in zip(found, expected):
    for site in harvest.sites:
      np.testing.assert_array_equal(have[site], want[site])


def test_the_seed_decides_the_order(lm, harvest):
  def first(seed):
    return np.asarray(next(source(lm, harvest, seed=seed))[Site("z", 1)])

  assert (first(1) == first(1)).all()
  assert (first(1) != first(2)).any()


@pytest.mark.parametrize(
  ("data", "model"),
  [
    (4, 2),
    pytest.param(8, 1, marks=pytest.mark.slow),
    pytest.param(2, 4, marks=pytest.mark.slow),
  ],
)
def test_a_mesh_gives_the_batches_of_one_device(lm, harvest, data, model):
  devices = np.array(jax.devices()[: data * model]).reshape(data, model)
  mesh = Mesh(devices, ("data", "model"))
  tensors = random_tensors(lm.config, seed=0)
  there = lm.replace(tensors_to_gemma(tensors, lm.config, mesh=mesh))
  sharded = source(lm, Harvest(there, SITES), parts=8)
  alone = source(lm, harvest, parts=8)
  count = 0
  for have, want in itertools.zip_longest(sharded, alone):
    count += 1
    for site, rows in want.items():
      scale = np.abs(np.asarray(rows)).max()
      np.testing.assert_allclose(have[site], rows, atol=1e-5 * scale)
      wanted = sharded.harvest.sharding(site)
      assert have[site].sharding.is_equivalent_to(wanted, 2)
  assert count == sum(LENGTHS) // 16


def test_parts_follow_the_mesh_and_bytes_the_sites(lm, harvest):
  rows = source(lm, harvest)
  assert isinstance(rows, RowSource)
  assert rows.parts == 1
  assert rows.buffer_bytes == 300 * (32 + 64 + 48) * 4
  half = source(lm, Harvest(lm, SITES, dtype="bfloat16"))
  assert half.buffer_bytes == rows.buffer_bytes // 2
  batch = next(half)
  assert {v.dtype.name for v in batch.values()} == {"bfloat16"}
  assert {v.shape[0] for v in batch.values()} == {16}


def test_sizes_that_do_not_fit_are_refused(lm, harvest):
  with pytest.raises(ConfigError, match=r"too small[\s\S]*buffer_rows=256 or"):
    source(lm, harvest, buffer_rows=255)
  with pytest.raises(ConfigError, match=r"share these rows[\s\S]*parts=3"):
    source(lm, harvest, parts=3)


def test_a_buffer_beyond_the_memory_is_refused(lm, harvest, monkeypatch):
  class Device:
    def memory_stats(self):
      return {"bytes_limit": 100 * 576}

  monkeypatch.setattr(jax, "devices", lambda: [Device()])
  with pytest.raises(ConfigError, match=r"576 bytes a row[\s\S]*than 100 rows"):
    source(lm, harvest)


def test_states_of_something_else_are_refused(lm, harvest):
  state = source(lm, harvest).state()
  with pytest.raises(ConfigError, match=r"something else[\s\S]*301"):
    source(lm, harvest, buffer_rows=301).restore(state)
  with pytest.raises(ConfigError, match=r"nothing for resid_post\[1\]"):
    source(lm, Harvest(lm, "resid_post[1]")).restore(state)
  half = Harvest(lm, SITES, dtype="bfloat16")
  with pytest.raises(ConfigError, match=r"float32[\s\S]*bfloat16"):
    source(lm, half).restore(state)


def test_several_processes_are_refused(lm, harvest, monkeypatch):
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  with pytest.raises(ConfigError, match="belongs to one process"):
    source(lm, harvest)
