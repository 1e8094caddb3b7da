"""Every test here has a cache of its own."""

import pytest


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
  folder = tmp_path / "cache"
  monkeypatch.setenv("GEMMA_SCOPE_CACHE", str(folder))
  return folder
