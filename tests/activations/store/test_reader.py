"""Rows by index, from one process and from several, also of a growing store."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from gemma_scope.activations.store import (
  SiteStatistics,
  Store,
  StoreError,
  StoreWriter,
  reader,
)
from gemma_scope.sites import Site
from tests.activations.store.synthetic import (
  LAYOUT,
  SITES,
  batch_of,
  manifest,
  rows_of,
  tokens_of,
  write,
)

BATCHES = 20
ROWS = 6 * BATCHES


@pytest.fixture(scope="module")
def path(tmp_path_factory):
  folder = tmp_path_factory.mktemp("store") / "acts"
  write(folder, BATCHES)
  return folder


def test_any_rows_in_any_order(path):
  store = Store.open(path)
  indices = np.random.default_rng(0).integers(0, ROWS, 3000)
  for site in store.sites:
    found = store.rows(site, indices)
    assert found.dtype == store.dtype
    np.testing.assert_array_equal(found, rows_of(site, indices))
  tokens = store.tokens(indices)
  np.testing.assert_array_equal(tokens.document, tokens_of(indices)[:, 4])
  assert store.rows(SITES[0], np.zeros(0, int)).shape == (0, 8)


def test_more_shards_than_maps(path, monkeypatch):
  monkeypatch.setattr(reader, "_MAX_MAPS", 2)
  store = Store.open(path)
  indices = np.arange(ROWS)
  found = store.rows(SITES[1], indices)
  np.testing.assert_array_equal(found, rows_of(SITES[1], indices))
  assert len(store._maps._open) == 2


def test_a_store_larger_than_the_memory(path, monkeypatch):
  real = reader.os.sysconf
  monkeypatch.setattr(
    reader.os, "sysconf", lambda name: 1 if "PHYS" in name else real(name)
  )
  store = Store.open(path)
  assert store._maps._larger_than_memory
  found = store.rows(SITES[0], np.arange(ROWS)[::-1])
  np.testing.assert_array_equal(found[::-1], rows_of(SITES[0], range(ROWS)))


def test_statistics_are_those_of_the_rows(path):
  for site, found in Store.open(path).statistics.items():
    norms = np.linalg.norm(rows_of(site, range(ROWS)).astype(float), axis=1)
    assert found == SiteStatistics(
      ROWS,
      pytest.approx(norms.mean(), rel=1e-6),
      pytest.approx((norms**2).mean(), rel=1e-6),
    )


def test_context_stays_within_a_piece(path):
  store = Store.open(path)
  # Six rows a sequence, three of them a segment.
  np.testing.assert_array_equal(store.context(61), [60, 61, 62])
  np.testing.assert_array_equal(store.context(63, before=9, after=1), [63, 64])
  np.testing.assert_array_equal(store.context(0), [0, 1, 2])
  np.testing.assert_array_equal(store.context(ROWS - 1), [117, 118, 119])


@pytest.mark.parametrize(
  "indices", [[ROWS], [-1], [0.5], [[0]], 3, [True]], ids=str
)
def test_rows_that_are_not_there(path, indices):
  with pytest.raises(StoreError, match=f"from 0 to {ROWS - 1}"):
    Store.open(path).rows(SITES[0], np.asarray(indices))


def test_a_site_that_is_not_there(path):
  with pytest.raises(StoreError, match=r"resid_post\[1\], mlp_in\[2\]"):
    Store.open(path).rows(Site("z", 1), np.arange(3))


def test_a_shard_that_is_not_there(tmp_path):
  write(tmp_path, 4)
  (tmp_path / "mlp_in_2" / "c.1.0").unlink()
  with pytest.raises(StoreError, match=r"damaged(.|\n)*c.1.0"):
    Store.open(tmp_path).rows(SITES[1], np.arange(24))


def test_an_earlier_extent(path):
  store = Store.open(path).limited((17,))
  assert store.num_rows == 17
  with pytest.raises(StoreError, match="from 0 to 16"):
    store.rows(SITES[0], np.array([17]))
  with pytest.raises(StoreError, match="fewer rows"):
    store.limited((18,))
  with pytest.raises(StoreError, match="fewer rows"):
    store.limited((1, 1))


def test_a_store_prints_itself(path):
  assert f"{ROWS} rows of 2 sites, bfloat16" in repr(Store.open(path))


READ = """
import sys, numpy as np
from gemma_scope.activations.store import Store
from tests.activations.store.synthetic import SITES, rows_of
print("ready", flush=True)
most = 0
while most < 600:
  store = Store.open(sys.argv[1])
  assert store.num_rows >= most, (store.num_rows, most)
  most = store.num_rows
  indices = np.random.default_rng(most).permutation(most)
  for site in SITES:
    assert (store.rows(site, indices) == rows_of(site, indices)).all()
"""
ROOT = pathlib.Path(__file__).resolve().parents[3]


def test_processes_read_what_is_being_written(tmp_path):
  """Two readers see whole commits only, and in the end everything."""
  write(tmp_path, 1)
  command = [sys.executable, "-c", READ, str(tmp_path)]
  pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
  readers = [subprocess.Popen(command, cwd=ROOT, **pipes) for _ in range(2)]
  assert [one.stdout.readline() for one in readers] == ["ready\n"] * 2
  with StoreWriter(tmp_path, LAYOUT, manifest()) as writer:
    for number in range(1, 100):
      writer.append(batch_of(number))
      writer.commit(None)
  for one in readers:
    _, errors = one.communicate(timeout=120)
    assert one.returncode == 0, errors
