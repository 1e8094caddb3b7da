"""Only what was committed counts, whatever goes wrong when."""

import dataclasses
import errno
import itertools
import os
import subprocess

import numpy as np
import pytest

from gemma_scope.activations.store import (
  Layout,
  Store,
  StoreError,
  StoreWriter,
  shards,
  verify,
)
from tests.activations.store.synthetic import (
  LAYOUT,
  SITES,
  WIDTHS,
  batch_of,
  contents,
  manifest,
  rows_of,
  tokens_of,
  write,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  """The files of a store of eight batches that nothing interrupted."""
  path = tmp_path_factory.mktemp("whole")
  write(path, 8)
  return contents(path)


def assert_rows(store, count):
  assert store.num_rows == count
  everything = np.arange(count)
  for site in SITES:
    np.testing.assert_array_equal(
      store.rows(site, everything), rows_of(site, everything)
    )
  there = dataclasses.astuple(store.tokens(everything))
  np.testing.assert_array_equal(np.stack(there, 1), tokens_of(everything))


def append(writer, *numbers):
  for number in numbers:
    writer.append(batch_of(number))


def test_rows_come_back_in_order(tmp_path):
  write(tmp_path, 8)
  assert_rows(Store.open(tmp_path), 48)
  assert verify(tmp_path).rows == 48


def test_going_on_gives_the_same_files(tmp_path, whole):
  for batches in (1, 2, 4, 7, 8, 8):
    write(tmp_path, batches)
  assert contents(tmp_path) == whole


def test_what_was_not_committed_does_not_count(tmp_path, whole):
  write(tmp_path, 3)
  with StoreWriter(tmp_path, LAYOUT, manifest()) as writer:
    assert writer.committed.state == {"batch": 3}
    append(writer, 3, 4, 5)
    assert (writer.rows, writer.batches) == (36, 6)
    assert_rows(Store.open(tmp_path), 18)
  assert_rows(Store.open(tmp_path), 18)
  write(tmp_path, 8)
  assert contents(tmp_path) == whole


def test_a_store_that_shrinks_by_a_kill_leaves_no_checksums(tmp_path):
  """A full shard's file may be written before the commit that counts it."""
  write(tmp_path, 1)
  (tmp_path / "shards").mkdir(exist_ok=True)
  (tmp_path / "shards" / "00000000.json").write_text("{}")
  write(tmp_path, 1)
  assert not (tmp_path / "shards" / "00000000.json").exists()


@pytest.mark.parametrize("write_number", [0, 1, 3, 5])
def test_a_disk_that_fills_up(tmp_path, whole, monkeypatch, write_number):
  """The n-th write takes half and fails; going on loses and doubles nothing."""
  write(tmp_path, 3)
  real, seen = shards._write, []

  def fail(file, data):
    seen.append(file)
    if len(seen) == write_number + 1:
      real(file, data[: len(data) // 2])
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    real(file, data)

  monkeypatch.setattr(shards, "_write", fail)
  full = pytest.raises(StoreError, match=r"disk is full(.|\n)*18 rows are")
  with StoreWriter(tmp_path, LAYOUT, manifest()) as writer, full:
    append(writer, 3, 4)
  assert_rows(Store.open(tmp_path), 18)
  assert verify(tmp_path).rows == 18
  monkeypatch.undo()
  write(tmp_path, 8)
  assert contents(tmp_path) == whole


def test_a_commit_that_finds_the_disk_full(tmp_path, whole, monkeypatch):
  write(tmp_path, 3)

  def fail(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  with StoreWriter(tmp_path, LAYOUT, manifest()) as writer:
    writer.append(batch_of(3))
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(StoreError, match="disk is full"):
      writer.commit({"batch": 4})
    with pytest.raises(AssertionError, match="failed before"):
      writer.append(batch_of(4))
  monkeypatch.undo()
  assert_rows(Store.open(tmp_path), 18)
  write(tmp_path, 8)
  assert contents(tmp_path) == whole


@pytest.fixture
def small_disk(tmp_path):
  """A file system of 256 KiB, where one can be mounted."""
  folder = tmp_path / "disk"
  folder.mkdir()
  mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(folder)]
  if subprocess.run(mount, capture_output=True, check=False).returncode:
    pytest.skip("mounting a small file system needs root")
  yield folder
  subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_real_disk_that_fills_up(small_disk):
  path = small_disk / "store"

  def fill():
    for batches in itertools.count(1):
      write(path, batches)

  with pytest.raises(StoreError, match="disk is full"):
    fill()
  store = Store.open(path)
  batches, left = divmod(store.num_rows, 6)
  assert not left
  assert batches > 10
  assert_rows(store, 6 * batches)
  larger = ["mount", "-o", "remount,size=1m", str(small_disk)]
  subprocess.run(larger, check=True)
  write(path, batches + 3)
  assert_rows(Store.open(path), 6 * batches + 18)
  verify(path)


def test_a_second_writer(tmp_path):
  busy = pytest.raises(StoreError, match="Another process is writing")
  with StoreWriter(tmp_path, LAYOUT, manifest()), busy:
    StoreWriter(tmp_path, LAYOUT, manifest())
  write(tmp_path, 1)


def test_hosts_write_side_by_side(tmp_path):
  layout = Layout(WIDTHS, "bfloat16", 10, hosts=2)
  with (
    StoreWriter(tmp_path, layout, manifest(), host=0) as first,
    StoreWriter(tmp_path, layout, manifest(), host=1) as second,
  ):
    for number in range(3):
      first.append(batch_of(number))
      second.append(batch_of(10 + number))
    first.commit(None)
    second.append(batch_of(13))
    second.commit(None)
  store = Store.open(tmp_path)
  assert store.extent == (18, 24)
  indices = [*range(18), *range(60, 84)]
  for site in SITES:
    np.testing.assert_array_equal(
      store.rows(site, np.arange(42)), rows_of(site, indices)
    )
  assert verify(tmp_path).rows == 42
  write(tmp_path, 8, layout, host=0)
  assert Store.open(tmp_path).extent == (48, 24)
  verify(tmp_path)


@pytest.mark.parametrize("host", [-1, 1])
def test_no_such_host(tmp_path, host):
  with pytest.raises(StoreError, match="no such host"):
    StoreWriter(tmp_path, LAYOUT, manifest(), host=host)
