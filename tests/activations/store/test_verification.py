"""Whatever happens to a byte that counts is found, and said where."""

import pytest

from gemma_scope.activations.store import Layout, StoreError, verify
from tests.activations.store.synthetic import LAYOUT, WIDTHS, write

ARRAYS = ("resid_post_1", "mlp_in_2", "tokens")


@pytest.fixture
def store(tmp_path):
  """Two full shards and one of four rows."""
  write(tmp_path, 4)
  return tmp_path


def flip(path, place):
  data = bytearray(path.read_bytes())
  data[place] ^= 0x10
  path.write_bytes(data)


def test_a_whole_store(store):
  told = []
  found = verify(store, progress=lambda *seen: told.append(seen))
  size = 24 * LAYOUT.bytes_per_row
  assert (found.rows, found.shards, found.bytes) == (24, 9, size)
  assert told[-1] == (size, size)
  assert len(told) == 9
  assert verify(str(store)) == found


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize(("chunk", "place"), [(0, 0), (1, -1), (2, 39)])
def test_a_flipped_bit(store, name, chunk, place):
  flip(store / name / f"c.{chunk}.0", place)
  with pytest.raises(StoreError, match="1 of its shards") as caught:
    verify(store)
  assert f"{name}/c.{chunk}.0 has changed" in caught.value.received
  assert "backup" in caught.value.instead


def test_bytes_that_do_not_count(store):
  flip(store / "resid_post_1" / "c.2.0", 4 * 16)
  verify(store)


def test_several_harms_at_once(store):
  (store / "tokens" / "c.0.0").unlink()
  flip(store / "mlp_in_2" / "c.1.0", 5)
  short = store / "resid_post_1" / "c.2.0"
  short.write_bytes(short.read_bytes()[:30])
  with pytest.raises(StoreError, match="3 of its shards") as caught:
    verify(store)
  for text in (
    "tokens/c.0.0 is missing",
    "mlp_in_2/c.1.0 has changed",
    "resid_post_1/c.2.0 is too short",
  ):
    assert text in caught.value.received


def test_many_harms_are_counted(tmp_path):
  write(tmp_path, 20)
  for chunk in range(9):
    (tmp_path / "tokens" / f"c.{chunk}.0").unlink()
  with pytest.raises(StoreError, match=r"9 of its shards(.|\n)*and 4 more"):
    verify(tmp_path)


def test_checksums_that_are_gone(store):
  (store / "shards" / "00000001.json").unlink()
  with pytest.raises(StoreError, match=r"damaged(.|\n)*00000001.json"):
    verify(store)


def test_shards_of_every_host(tmp_path):
  layout = Layout(WIDTHS, "bfloat16", 10, hosts=2)
  write(tmp_path, 3, layout, host=0)
  write(tmp_path, 4, layout, host=1)
  assert verify(tmp_path).rows == 42
  flip(tmp_path / "tokens" / "c.5.0", 0)
  with pytest.raises(StoreError, match=r"tokens/c.5.0"):
    verify(tmp_path)


def test_no_store(tmp_path):
  with pytest.raises(StoreError, match="no activation store"):
    verify(tmp_path)
