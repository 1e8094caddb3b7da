"""The tokenizer file beside a checkpoint."""

import pathlib

from etils import epath
import pytest

from gemma_scope.weights import tokenizer_files


class _Remote:
  """A file far away, as far as `local_copy` can tell."""

  name = "tokenizer.model"

  def __init__(self):
    self.reads = 0

  def __fspath__(self):
    return "gs://bucket/m/tokenizer.model"

  def read_bytes(self):
    self.reads += 1
    return b"pieces"


def test_folders_are_asked_in_order(tmp_path):
  first, second = tmp_path / "a", tmp_path / "b"
  for folder in (first, second):
    folder.mkdir()
  assert tokenizer_files.find_tokenizer(first, second) is None
  (second / "tokenizer.json").write_text("{}")
  found = tokenizer_files.find_tokenizer(first, second)
  assert found == str(second / "tokenizer.json")
  (second / "tokenizer.model").write_text("x")
  found = tokenizer_files.find_tokenizer(first, second)
  assert found == str(second / "tokenizer.model")
  (first / "tokenizer.json").write_text("{}")
  found = tokenizer_files.find_tokenizer(first, second)
  assert found == str(first / "tokenizer.json")


def test_local_files_stay_where_they_are(tmp_path, cache_folder):
  path = epath.Path(tmp_path / "tokenizer.model")
  assert tokenizer_files.local_copy(path) == str(path)
  assert not cache_folder.exists()


def test_remote_files_are_copied_once(cache_folder):
  remote = _Remote()
  for _ in range(2):
    copy = tokenizer_files.local_copy(remote)
    assert pathlib.Path(copy).read_bytes() == b"pieces"
    assert cache_folder in pathlib.Path(copy).parents
    assert copy.endswith("tokenizer.model")
  assert remote.reads == 1


def test_a_copy_that_fails_is_a_warning(cache_folder, caplog):
  cache_folder.write_text("in the way")
  assert tokenizer_files.local_copy(_Remote()) is None
  assert "cannot be copied" in caplog.text


@pytest.mark.parametrize("official", [True, False])
def test_official_checkpoints_share_one(monkeypatch, official):
  asked = []
  monkeypatch.setattr(tokenizer_files, "_NAMES", ())
  monkeypatch.setattr(
    tokenizer_files, "local_copy", lambda file: asked.append(str(file))
  )
  bucket = "gemma-data" if official else "mine"
  tokenizer_files.find_tokenizer(f"gs://{bucket}/checkpoints/x")
  expected = "gs://gemma-data/tokenizers/tokenizer_gemma3.model"
  assert asked == ([expected] if official else [])
