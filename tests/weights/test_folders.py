"""Files and folders appear whole or not at all."""

import os
import stat

import pytest

from gemma_scope import errors
from gemma_scope.weights import folders


def test_new_file(tmp_path):
  path = tmp_path / "made" / "a"
  with folders.new_file(path) as file:
    file.write(b"one")
    assert not path.exists()
  assert path.read_bytes() == b"one"
  with folders.new_file(path) as file:
    file.write(b"two")
    assert path.read_bytes() == b"one"
  assert path.read_bytes() == b"two"
  assert [p.name for p in path.parent.iterdir()] == ["a"]


def test_new_file_with_an_error(tmp_path):
  path = tmp_path / "a"
  path.write_bytes(b"old")

  def write():
    with folders.new_file(path) as file:
      file.write(b"half")
      raise RuntimeError("stop")

  with pytest.raises(RuntimeError, match="stop"):
    write()
  assert path.read_bytes() == b"old"
  assert list(tmp_path.iterdir()) == [path]


def test_permissions_follow_the_umask(tmp_path):
  before = os.umask(0o027)
  try:
    with folders.new_file(tmp_path / "a") as file:
      file.write(b"x")
    with folders.new_folder(tmp_path / "b"):
      pass
  finally:
    os.umask(before)
  assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640
  assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o750


def test_new_folder(tmp_path):
  path = tmp_path / "made" / "m"
  with folders.new_folder(path) as made:
    (made / "a").write_text("x")
    assert not path.exists()
  assert [p.name for p in path.iterdir()] == ["a"]
  assert list(path.parent.iterdir()) == [path]


def test_new_folder_with_an_error(tmp_path):
  def write():
    with folders.new_folder(tmp_path / "m") as made:
      (made / "a").write_text("half")
      raise RuntimeError("stop")

  with pytest.raises(RuntimeError, match="stop"):
    write()
  assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_may_be_there(tmp_path):
  (tmp_path / "m").mkdir()
  with folders.new_folder(tmp_path / "m") as made:
    (made / "a").write_text("x")
  assert (tmp_path / "m" / "a").exists()


@pytest.mark.parametrize("is_file", [True, False])
def test_what_exists_is_kept(tmp_path, is_file):
  place = tmp_path / "m"
  if is_file:
    place.write_text("mine")
  else:
    place.mkdir()
    (place / "mine").write_text("x")
  with (
    pytest.raises(errors.CheckpointError, match="already exists"),
    folders.new_folder(place),
  ):
    pass
  assert [p.name for p in tmp_path.iterdir()] == ["m"]
