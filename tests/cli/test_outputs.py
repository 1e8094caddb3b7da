import errno
import os
import stat

import pytest

from gemma_scope import errors
from gemma_scope.cli import outputs


def test_destination_is_made_absolute(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert outputs.check_destination("a.html", "--out") == tmp_path / "a.html"


@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("", "names a folder"),
    ("missing/a.html", "does not exist"),
    ("file/a.html", "does not exist"),
    ("pipe", "no ordinary file"),
  ],
)
def test_destination_that_cannot_be(name, message, tmp_path):
  (tmp_path / "file").write_text("")
  os.mkfifo(tmp_path / "pipe")
  with pytest.raises(errors.GemmaScopeError, match=message):
    outputs.check_destination(os.path.join(tmp_path, name), "--out")


def test_destination_in_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
  # By permission bits alone the test would pass for root whatever they say.
  monkeypatch.setattr(os, "access", lambda *_: False)
  with pytest.raises(errors.GemmaScopeError, match="cannot be written"):
    outputs.check_destination(str(tmp_path / "a.html"), "--out")


def test_write_replaces_and_leaves_nothing_else(tmp_path):
  path = tmp_path / "a.html"
  path.write_text("old")
  outputs.write_text(path, "Zürich\n")
  assert path.read_bytes() == "Zürich\n".encode()
  assert list(tmp_path.iterdir()) == [path]


def test_write_obeys_the_umask(tmp_path):
  before = os.umask(0o027)
  try:
    outputs.write_text(tmp_path / "a", "x")
  finally:
    os.umask(before)
  assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_failed_write_keeps_the_old_file(step, tmp_path, monkeypatch):
  path = tmp_path / "a.html"
  path.write_text("old")

  def fail(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(os, step, fail)
  with pytest.raises(errors.GemmaScopeError, match="No space left"):
    outputs.write_text(path, "new")
  assert path.read_text() == "old"
  assert list(tmp_path.iterdir()) == [path]
