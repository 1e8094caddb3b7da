"""The install cell: what it asks pip for in Colab, and nothing elsewhere."""

import importlib.metadata
import os
import pathlib
import subprocess
import sys
import types

import nbformat
import pytest

FOLDER = pathlib.Path(__file__).resolve().parent.parent.parent / "colabs"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))

# What Colab's images bring, by runtime, besides JAX and numpy.
PLUGINS = {
  "cpu": {},
  "gpu": {"jax-cuda12-plugin": "0.7.2"},
  "gpu, cuda 13": {"jax-cuda13-plugin": "0.11.0"},
  "tpu": {"libtpu": "0.0.17"},
}
ACCELERATOR = {
  "cpu": [],
  "gpu": ["jax[cuda12]"],
  "gpu, cuda 13": ["jax[cuda13]"],
  "tpu": ["jax[tpu]"],
}


def install_cell(path):
  cells = nbformat.read(path, as_version=4).cells
  (found,) = [c for c in cells if "install" in c.metadata.get("tags", ())]
  return found.source


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def run_cell(request):
  """A function that runs a notebook's install cell."""
  code = compile(install_cell(request.param), "install cell", "exec")
  return lambda: exec(code, {})


@pytest.fixture
def colab(monkeypatch, tmp_path):
  """A Colab of which nothing is real.

  Returns:
    A namespace: `versions` of what is installed, `asked`, the arguments of
    each call of pip, and `after`, versions that an installation changes.
  """
  state = types.SimpleNamespace(
    versions={"jax": "0.7.2", "numpy": "2.0.2"}, asked=[], after={}
  )

  def version(package):
    if package not in state.versions:
      raise importlib.metadata.PackageNotFoundError(package)
    return state.versions[package]

  def run(command, *, check):
    assert check
    assert command[:4] == [sys.executable, "-m", "pip", "install"]
    state.asked.append([c for c in command[4:] if not c.startswith("-")])
    state.versions |= state.after

  monkeypatch.setattr(importlib.metadata, "version", version)
  monkeypatch.setattr(subprocess, "run", run)
  monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("colab"))
  for name in ("jax", "numpy"):  # a new kernel has imported neither
    monkeypatch.delitem(sys.modules, name, raising=False)
  monkeypatch.chdir(tmp_path)
  return state


@pytest.mark.parametrize("runtime", PLUGINS)
def test_renews_jax_with_its_accelerator(runtime, run_cell, colab, tmp_path):
  (tmp_path / "gemma_scope.zip").touch()
  colab.versions |= PLUGINS[runtime]
  run_cell()
  project = f"{tmp_path / 'gemma_scope.zip'}[demo]"
  assert colab.asked == [[project, *ACCELERATOR[runtime]]]


@pytest.mark.parametrize(
  "upload",
  [
    "gemma_scope.zip",
    "gemma-scope-main.zip",
    "gemma_scope-0.1.0.tar.gz",
    "gemma_scope-0.1.0-py3-none-any.whl",
  ],
)
def test_finds_what_was_uploaded(upload, run_cell, colab, tmp_path):
  for name in (upload, "gemma-scope-explain.html"):
    (tmp_path / name).touch()
  os.utime(tmp_path / upload, (0, 0))  # the newer file is no project
  run_cell()
  assert colab.asked == [[f"{tmp_path / upload}[demo]"]]


def test_finds_a_checkout(run_cell, colab, tmp_path):
  (tmp_path / "gemma_scope").mkdir()
  run_cell()
  assert colab.asked == [[f"{tmp_path / 'gemma_scope'}[demo]"]]


def test_takes_the_newest(run_cell, colab, tmp_path):
  for day, name in enumerate(["gemma_scope.zip", "gemma_scope (1).zip"]):
    (tmp_path / name).touch()
    os.utime(tmp_path / name, (day, day))
  run_cell()
  assert colab.asked == [[f"{tmp_path / 'gemma_scope (1).zip'}[demo]"]]


def test_says_what_to_upload(run_cell, colab):
  with pytest.raises(FileNotFoundError, match=r"Upload gemma_scope\.zip"):
    run_cell()
  assert colab.asked == []


def test_keeps_what_is_imported(run_cell, colab, tmp_path, monkeypatch):
  (tmp_path / "gemma_scope").mkdir()
  monkeypatch.setitem(sys.modules, "numpy", types.ModuleType("numpy"))
  run_cell()
  assert colab.asked[0][1:] == ["numpy==2.0.2"]


def test_asks_for_a_restart(run_cell, colab, tmp_path, monkeypatch):
  (tmp_path / "gemma_scope").mkdir()
  monkeypatch.setitem(sys.modules, "jax", types.ModuleType("jax"))
  run_cell()  # JAX was new enough and stayed
  colab.after = {"jax": "0.12.0"}
  with pytest.raises(RuntimeError, match="Restart session"):
    run_cell()


def test_does_nothing_once_installed(run_cell, colab, tmp_path):
  (tmp_path / "gemma_scope").mkdir()
  colab.versions["gemma-scope"] = "0.1.0"
  run_cell()
  assert colab.asked == []


def test_does_nothing_elsewhere(run_cell, colab, tmp_path, monkeypatch):
  (tmp_path / "gemma_scope").mkdir()
  monkeypatch.delitem(sys.modules, "google.colab")
  run_cell()
  assert colab.asked == []
