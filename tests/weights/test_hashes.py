"""sha256, remembered until the file changes."""

import hashlib
import os

import pytest

from gemma_scope.weights import hashes


@pytest.fixture
def path(tmp_path):
  path = tmp_path / "a"
  path.write_bytes(b"weights")
  return path


@pytest.fixture
def counted(monkeypatch):
  """How often a file was really hashed."""
  calls = []
  whole = hashlib.file_digest

  def file_digest(file, kind):
    calls.append(file.name)
    return whole(file, kind)

  monkeypatch.setattr(hashlib, "file_digest", file_digest)
  return calls


def test_computed_once(path, counted):
  expected = hashlib.sha256(b"weights").hexdigest()
  assert hashes.file_sha256(path) == expected
  assert hashes.file_sha256(path) == expected
  assert hashes.file_sha256(os.path.relpath(path)) == expected
  assert len(counted) == 1


def test_computed_anew_when_the_file_changes(path, counted):
  before = hashes.file_sha256(path)
  path.write_bytes(b"weighty")
  os.utime(path, ns=(1, 1))
  assert hashes.file_sha256(path) != before
  assert len(counted) == 2


@pytest.mark.parametrize("text", ["", "{}", "[]", "3"])
def test_a_broken_memo_is_ignored(path, counted, cache_folder, text):
  expected = hashes.file_sha256(path)
  (memo,) = (cache_folder / "sha256").iterdir()
  memo.write_text(text)
  assert hashes.file_sha256(path) == expected
  assert len(counted) == 2


def test_without_a_cache(path, counted, cache_folder):
  cache_folder.write_text("in the way")
  expected = hashlib.sha256(b"weights").hexdigest()
  assert hashes.file_sha256(path) == expected
  assert hashes.file_sha256(path) == expected
  assert len(counted) == 2
