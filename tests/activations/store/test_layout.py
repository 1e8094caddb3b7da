"""The files of a store, read by ours and by another zarr reader."""

import json

import numpy as np
import pytest
import tensorstore

from gemma_scope.activations.store import Layout, Store, StoreError
from gemma_scope.activations.store import layout as layouts
from tests.activations.store.synthetic import (
  LAYOUT,
  SITES,
  manifest,
  rows_of,
  tokens_of,
  write,
)


def open_zarr(path):
  kvstore = {"driver": "file", "path": str(path)}
  return tensorstore.open({"driver": "zarr3", "kvstore": kvstore}).result()


def test_other_readers_see_zarr_arrays(tmp_path):
  write(tmp_path, 4)
  for site in SITES:
    array = open_zarr(tmp_path / layouts.name_of(site))
    assert array.dtype.name == "bfloat16"
    found = array.read().result()
    np.testing.assert_array_equal(found, rows_of(site, range(24)))
  tokens = open_zarr(tmp_path / "tokens").read().result()
  np.testing.assert_array_equal(tokens, tokens_of(range(24)))
  group = json.loads((tmp_path / "zarr.json").read_bytes())
  assert (group["zarr_format"], group["node_type"]) == (3, "group")


def test_what_is_in_a_shard_file_is_rows(tmp_path):
  write(tmp_path, 2)
  raw = (tmp_path / "resid_post_1" / "c.0.0").read_bytes()
  assert raw == rows_of(SITES[0], range(10)).tobytes()


def test_the_manifest_comes_back(tmp_path):
  layout = Layout({SITES[1]: 5, SITES[0]: 8}, "float32", 3, hosts=2)
  layouts.write_manifest(tmp_path, layout, manifest())
  found, about = layouts.read_manifest(tmp_path)
  assert found == layout
  assert list(found.widths) == list(SITES)
  assert about == manifest()
  assert found.bytes_per_row == 4 * (8 + 5 + 6)
  assert found.chunk(3, 1) == 7


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"format": "other"}, "manifest is not that of a store"),
    ({"version": 99}, "version 99"),
    ({"layout": {}}, "damaged"),
    ({"layout": {"widths": {"resid_post[1]": 3}, "more": 1}}, "damaged"),
  ],
)
def test_other_manifests_are_refused(tmp_path, change, message):
  write(tmp_path, 1)
  path = tmp_path / "manifest.json"
  path.write_text(json.dumps(json.loads(path.read_bytes()) | change))
  with pytest.raises(StoreError, match=message):
    Store.open(tmp_path)


def test_no_store(tmp_path):
  with pytest.raises(StoreError, match="no activation store here"):
    Store.open(tmp_path / "nothing")


def test_half_a_manifest(tmp_path):
  write(tmp_path, 1)
  path = tmp_path / "manifest.json"
  path.write_bytes(path.read_bytes()[:40])
  with pytest.raises(StoreError, match=r"damaged(.|\n)*backup"):
    Store.open(tmp_path)


@pytest.mark.parametrize(
  "bad", [{"dtype": "float16"}, {"shard_rows": 0}, {"hosts": 0}, {"widths": {}}]
)
def test_layouts_that_cannot_be(bad):
  good = {"widths": LAYOUT.widths, "dtype": "float32", "shard_rows": 1}
  with pytest.raises(StoreError, match="at least one site"):
    Layout(**{**good, **bad})
