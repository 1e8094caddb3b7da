"""The converted cache: exact, checked, and never a reason to fail."""

import logging
import os
import pathlib
import shutil

import numpy as np
import pytest
import safetensors

from gemma_scope.testing import checkpoints
from gemma_scope.weights import cache, checkpoint

_SHA = "ab" * 32


@pytest.fixture
def arrays():
  return checkpoints.random_arrays(checkpoints.tiny_sizes())


@pytest.fixture
def lazy(arrays):
  return {
    name: checkpoint.LazyTensor(a.shape, a.dtype, lambda a=a: a)
    for name, a in arrays.items()
  }


def test_folder(monkeypatch, tmp_path):
  monkeypatch.setenv("GEMMA_SCOPE_CACHE", str(tmp_path / "x"))
  assert cache.folder() == tmp_path / "x"
  monkeypatch.delenv("GEMMA_SCOPE_CACHE")
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  assert cache.folder() == tmp_path / "gemma_scope"
  monkeypatch.delenv("XDG_CACHE_HOME")
  assert cache.folder() == pathlib.Path.home() / ".cache" / "gemma_scope"


def test_round_trip(arrays, lazy):
  assert cache.load(_SHA) is None
  assert cache.store(_SHA, lazy, "here")
  found = cache.load(_SHA)
  assert found.keys() == arrays.keys()
  for name, array in arrays.items():
    value = found[name].read()
    assert isinstance(value, np.memmap)
    assert value.dtype == array.dtype
    np.testing.assert_array_equal(value, array, err_msg=name)
  assert cache.load("cd" * 32) is None


def test_many_pieces(arrays, lazy, monkeypatch):
  monkeypatch.setattr(cache, "_PIECE_BYTES", 1000)
  assert cache.store(_SHA, lazy, "here")
  found = cache.load(_SHA)
  np.testing.assert_array_equal(
    found["layer_0/mlp/linear"].read(), arrays["layer_0/mlp/linear"]
  )


def test_manifest(lazy):
  cache.store(_SHA, lazy, "the source")
  with safetensors.safe_open(cache.path_of(_SHA), "numpy") as file:
    manifest = file.metadata()["manifest"]
  for part in ("the source", _SHA, "gemma_scope", "created"):
    assert part in manifest


def test_any_flipped_bit_shows(lazy, caplog):
  cache.store(_SHA, lazy, "here")
  path = cache.path_of(_SHA)
  whole = path.read_bytes()
  header_bytes = int.from_bytes(whole[:8], "little")
  manifest = whole.index(b"manifest"), whole.index(b"checksums") - 5
  padding = 8 + len(whole[8 : 8 + header_bytes].rstrip())
  rng = np.random.default_rng(0)
  flipped = [int(at) for at in rng.integers(0, len(whole), 150)]
  flipped += [int(at) for at in rng.integers(0, header_bytes, 150)]
  for at in [*flipped, len(whole) - 1]:
    if manifest[0] <= at < manifest[1] or padding <= at < 8 + header_bytes:
      continue  # Text that no tensor depends on.
    content = bytearray(whole)
    content[at] ^= 1 << int(rng.integers(0, 8))
    path.write_bytes(content)
    assert cache.load(_SHA) is None, f"byte {at}"
  assert "damaged and made anew" in caplog.text


@pytest.mark.parametrize("keep", [0, 5, 3000, -1])
def test_cut_off_files_count_as_absent(arrays, lazy, caplog, keep):
  cache.store(_SHA, lazy, "here")
  path = cache.path_of(_SHA)
  path.write_bytes(path.read_bytes()[:keep])
  assert cache.load(_SHA) is None
  assert "damaged and made anew" in caplog.text
  assert cache.store(_SHA, lazy, "here")
  assert cache.load(_SHA) is not None


def test_file_of_another_source(lazy):
  cache.store(_SHA, lazy, "here")
  other = "ab" * 16 + "cd" * 16  # the same file name
  assert cache.path_of(other) == cache.path_of(_SHA)
  assert cache.load(other) is None


def test_full_disk(lazy, monkeypatch, caplog):
  usage = shutil.disk_usage("/")._replace(free=1000)
  monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
  assert not cache.store(_SHA, lazy, "here")
  assert "1,000 free" in caplog.text
  assert cache.load(_SHA) is None


def test_disk_that_fills_up_while_writing(lazy, monkeypatch, caplog):
  def full(handle):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(os, "fsync", full)
  assert not cache.store(_SHA, lazy, "here")
  assert "No space left" in caplog.text
  assert list(cache.path_of(_SHA).parent.iterdir()) == []


def test_folder_that_cannot_be_made(lazy, cache_folder, caplog):
  cache_folder.write_text("a file is in the way")
  assert cache.load(_SHA) is None
  assert not cache.store(_SHA, lazy, "here")
  assert "not cached" in caplog.text


def test_an_error_while_reading_leaves_nothing(lazy):
  def fail():
    raise RuntimeError("unreadable")

  name = "layer_1/mlp/linear"
  lazy[name] = checkpoint.LazyTensor(lazy[name].shape, lazy[name].dtype, fail)
  with pytest.raises(RuntimeError, match="unreadable"):
    cache.store(_SHA, lazy, "here")
  assert list(cache.path_of(_SHA).parent.iterdir()) == []


def test_absence_is_no_warning(caplog):
  with caplog.at_level(logging.INFO):
    assert cache.load(_SHA) is None
  assert caplog.text == ""
