"""Shard files: appended, cut back, and checked when a writer goes on."""

import io
import zlib

import numpy as np
import pytest

from gemma_scope.activations.store import StoreError, shards
from gemma_scope.activations.store.shards import ShardWriter, file_checksum
from tests.activations.store.synthetic import LAYOUT, SITES, rows_of

NAME = "resid_post_1"


def rows(start, stop):
  return rows_of(SITES[0], range(start, stop))


def raw(start, stop):
  return rows(start, stop).tobytes()


def read(folder, chunk):
  return (folder / NAME / f"c.{chunk}.0").read_bytes()


@pytest.fixture
def writers(tmp_path):
  """Makes a writer that starts at (rows, checksum)."""
  return lambda *start: ShardWriter(tmp_path, LAYOUT, NAME, 0, start)


def test_rows_go_over_the_ends_of_shards(tmp_path, writers):
  writer = writers(0, 0)
  writer.append(rows(0, 4))
  writer.append(rows(4, 27))
  writer.sync()
  assert [read(tmp_path, i) for i in range(3)] == [
    raw(0, 10),
    raw(10, 20),
    raw(20, 27),
  ]
  assert writer.full == {
    0: zlib.crc32(raw(0, 10)),
    1: zlib.crc32(raw(10, 20)),
  }
  assert writer.checksum == zlib.crc32(raw(20, 27))
  writer.close(whole=False)


def test_what_no_commit_counts_is_cut_off(tmp_path, writers):
  first = writers(0, 0)
  first.append(rows(0, 27))
  first.close(whole=False)
  second = writers(14, zlib.crc32(raw(10, 14)))
  assert read(tmp_path, 1) == raw(10, 14)
  assert not (tmp_path / NAME / "c.2.0").exists()
  second.append(rows(14, 20))
  assert read(tmp_path, 1) == raw(10, 20)
  assert second.full == {1: zlib.crc32(raw(10, 20))}
  third = writers(20, 0)
  third.append(rows(20, 21))
  third.close(whole=True)
  assert read(tmp_path, 2) == raw(20, 21) + bytes(9 * 16)


def test_other_hosts_files_are_left_alone(tmp_path):
  other = type(LAYOUT)(LAYOUT.widths, "bfloat16", 10, hosts=2)
  for host in (0, 1):
    writer = ShardWriter(tmp_path, other, NAME, host, (0, 0))
    writer.append(rows(100 * host, 100 * host + 15))
    writer.close(whole=False)
  ShardWriter(tmp_path, other, NAME, 0, (0, 0))
  names = sorted(path.name for path in (tmp_path / NAME).iterdir())
  assert names == ["c.1.0", "c.3.0"]


@pytest.mark.parametrize("harm", ["missing", "short", "changed"])
def test_counted_rows_that_are_gone(tmp_path, writers, harm):
  writer = writers(0, 0)
  writer.append(rows(0, 7))
  writer.close(whole=False)
  path = tmp_path / NAME / "c.0.0"
  data = bytearray(path.read_bytes())
  data[3] ^= 1
  path.unlink()
  if harm != "missing":
    path.write_bytes(data if harm == "changed" else raw(0, 6))
  with pytest.raises(StoreError, match="damaged"):
    writers(7, zlib.crc32(raw(0, 7)))


def test_the_checksum_of_a_beginning(tmp_path):
  data = np.random.default_rng(0).bytes(5000)
  path = tmp_path / "file"
  path.write_bytes(data)
  assert file_checksum(path, 4000) == zlib.crc32(data[:4000])
  assert file_checksum(path, 5001) is None


def test_a_write_that_takes_a_part_goes_on():
  """As a disk that is nearly full, or a signal, makes it."""

  class Reluctant(io.BytesIO):
    def write(self, data, /):
      return super().write(data[: max(1, len(data) // 3)])

  file = Reluctant()
  shards._write(file, memoryview(b"all of these bytes"))
  assert file.getvalue() == b"all of these bytes"
