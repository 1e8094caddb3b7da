"""A writer goes on with its own store and with no other."""

import dataclasses

import pytest

from gemma_scope.activations.store import (
  Layout,
  StoreError,
  StoreWriter,
  opening,
)
from gemma_scope.manifest import make_manifest
from tests.activations.store.synthetic import LAYOUT, WIDTHS, manifest, write


def test_a_folder_with_something_else(tmp_path):
  (tmp_path / "thesis.tex").write_text("years of work")
  with pytest.raises(StoreError, match=r"no activation store(.|\n)*thesis"):
    StoreWriter(tmp_path, LAYOUT, manifest())
  assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_places_for_no_folder(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(StoreError, match="this is a file"):
    opening.check_folder(tmp_path / "file")
  with pytest.raises(StoreError, match="cannot be made"):
    opening.make_folder(tmp_path / "file" / "store")
  opening.check_folder(tmp_path / "new")
  assert not (tmp_path / "new").exists()


def test_a_folder_of_a_writer_that_was_killed_at_once(tmp_path):
  (tmp_path / "host_0000.lock").write_text("")
  (tmp_path / ".manifest.json.1234.tmp").write_text("")
  write(tmp_path, 1)


LEFT = (
  ".manifest.json.12ab.tmp",
  "tokens/.zarr.json.12ab.tmp",
  "commits/.host_0000.json.12ab.tmp",
  "shards/.00000002.json.12ab.tmp",
  "commits/.host_0001.json.12ab.tmp",
  "shards/.00000003.json.12ab.tmp",
)


@pytest.mark.parametrize(
  ("hosts", "stays"), [(1, LEFT[4:5]), (2, (*LEFT[:2], *LEFT[4:]))]
)
def test_temporary_files_of_killed_writers_go(tmp_path, hosts, stays):
  """Those of this host, and where there is one host those of all."""
  layout = Layout(WIDTHS, "bfloat16", 10, hosts)
  write(tmp_path, 4, layout)
  for name in LEFT:
    (tmp_path / name).write_text("half")
  write(tmp_path, 4, layout)
  assert [name for name in LEFT if (tmp_path / name).exists()] == list(stays)


@pytest.mark.parametrize(
  ("layout", "about", "message"),
  [
    (LAYOUT, manifest(seed=1), "seed was 0, is 1"),
    (
      LAYOUT,
      make_manifest({"text": "other"}, model="tiny", seed=0),
      "text was",
    ),
    (
      LAYOUT,
      make_manifest({"text": "synthetic", "a": {"b": 1}}, model="tiny", seed=0),
      "a.b was None, is 1",
    ),
    (LAYOUT, dataclasses.replace(manifest(), model="big"), 'model was "tiny"'),
    (Layout(WIDTHS, "float32", 10), manifest(), 'dtype was "bfloat16"'),
    (Layout(WIDTHS, "bfloat16", 20), manifest(), "shard_rows was 10"),
    (Layout(WIDTHS, "bfloat16", 10, 2), manifest(), "hosts was 1, is 2"),
    (
      Layout({k: 3 for k in WIDTHS}, "bfloat16", 10),
      manifest(),
      r"widths.mlp_in\[2\] was 5, is 3",
    ),
  ],
)
def test_other_options_are_named(tmp_path, layout, about, message):
  write(tmp_path, 1)
  with pytest.raises(StoreError, match=message):
    StoreWriter(tmp_path, layout, about)
  write(tmp_path, 2)  # the refused writer let go


def test_date_and_versions_may_differ(tmp_path):
  write(tmp_path, 1)
  later = dataclasses.replace(manifest(), created="3000", versions={"jax": "9"})
  opening.make_or_check(tmp_path, LAYOUT, later)
