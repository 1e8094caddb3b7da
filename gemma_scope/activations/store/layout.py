"""The files of an activation store, and what never changes in one.

    manifest.json             layout and capture options, written once
    zarr.json                 the store is a zarr3 group
    resid_post_5/zarr.json    of one zarr3 array a site, [rows, width]
    resid_post_5/c.0.0 …      shards: `shard_rows` rows each, as plain bytes
    tokens/…                  int32 [rows, 6]: where each row comes from
    shards/00000000.json      checksums of a full shard
    commits/host_0000.json    how many rows count, and where to go on
    host_0000.lock            who writes

An uncompressed zarr3 chunk is its rows, one after the other: other zarr readers
open a store as it is, and ours maps the same files into memory. The reason is
speed: single rows gathered by index at width 640, float32, came at 20,000 to
45,000 a second and site through tensorstore, sharded or not, and at 2 to 3
million from mapped files. zarr.json follows when a writer closes; until then
other readers see the rows of the last time.

Every host writes shards of its own: host h of n has the chunks h, h + n, …;
with one host the rows of a zarr array are those of the store. Nothing is
compressed.
"""

from collections.abc import Mapping
import dataclasses
import json
import os
import pathlib
from typing import Any

import ml_dtypes
import numpy as np

from gemma_scope.activations.store import errors
from gemma_scope.manifest import Manifest
from gemma_scope.sites import Site, resolve
from gemma_scope.weights import folders

MANIFEST = "manifest.json"
FORMAT = "gemma_scope activation store"
VERSION = 1
TOKENS = "tokens"
# What is kept of the token behind each row; -1 where it is not known.
TOKEN_COLUMNS = (
  "id",  # the token
  "sequence",  # the packed row it was in, counted over the whole capture
  "position",  # its column there
  "segment",  # which piece of the packed row, from 1
  "document",  # index of its document in the corpus
  "offset",  # its place in the document
)
DTYPES: Mapping[str, np.dtype] = {
  "float32": np.dtype(np.float32),
  "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
_MANY_LAYERS = 1 << 20


@dataclasses.dataclass(frozen=True)
class Layout:
  """What the bytes of a store mean.

  Attributes:
    widths: Site -> width of its rows, in forward order.
    dtype: "float32" or "bfloat16", of every site.
    shard_rows: Rows of a full shard.
    hosts: How many hosts write.
  """

  widths: Mapping[Site, int]
  dtype: str
  shard_rows: int
  hosts: int = 1

  def __post_init__(self):
    good = self.dtype in DTYPES and self.shard_rows > 0 and self.hosts > 0
    if not good or not self.widths:
      raise errors.StoreError(
        "A store has at least one site, in float32 or bfloat16, and shards.",
        received=f"{len(self.widths)} sites, dtype={self.dtype!r}, "
        f"shard_rows={self.shard_rows}, hosts={self.hosts}",
        instead='for example dtype="bfloat16", shard_rows=131072, hosts=1',
      )
    ordered = {site: self.widths[site] for site in sorted(self.widths)}
    object.__setattr__(self, "widths", ordered)

  @property
  def arrays(self) -> dict[str, "ArraySpec"]:
    """Name of the folder -> its array; the sites', then the tokens'."""
    found = {
      name_of(site): ArraySpec(name_of(site), width, DTYPES[self.dtype])
      for site, width in self.widths.items()
    }
    ids = ArraySpec(TOKENS, len(TOKEN_COLUMNS), np.dtype(np.int32))
    return found | {TOKENS: ids}

  @property
  def bytes_per_row(self) -> int:
    """Bytes on the disk for one token."""
    return sum(array.row_bytes for array in self.arrays.values())

  def chunk(self, shard: int, host: int) -> int:
    """The chunk that is shard number `shard` of a host."""
    return shard * self.hosts + host

  def to_dict(self) -> dict[str, Any]:
    """Returns the layout as JSON values."""
    widths = {str(site): width for site, width in self.widths.items()}
    fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
    return fields | {"widths": widths}


@dataclasses.dataclass(frozen=True)
class ArraySpec:
  """One array of a store.

  Attributes:
    name: Its folder.
    width: Columns.
    dtype: Of an element, little-endian on the disk.
  """

  name: str
  width: int
  dtype: np.dtype

  @property
  def row_bytes(self) -> int:
    """Bytes of a row."""
    return self.width * self.dtype.itemsize

  def chunk_path(self, store: pathlib.Path, chunk: int) -> pathlib.Path:
    """The file of a shard."""
    return store / self.name / f"c.{chunk}.0"


def name_of(site: Site) -> str:
  """The folder of a site's array: resid_post_5."""
  return site.name if site.layer is None else f"{site.name}_{site.layer}"


def commit_path(store: pathlib.Path, host: int) -> pathlib.Path:
  """The file that says how far a host is."""
  return store / "commits" / f"host_{host:04d}.json"


def shard_path(store: pathlib.Path, chunk: int) -> pathlib.Path:
  """The file with the checksums of a full shard."""
  return store / "shards" / f"{chunk:08d}.json"


def lock_path(store: pathlib.Path, host: int) -> pathlib.Path:
  """The file that the writer of a host holds."""
  return store / f"host_{host:04d}.lock"


def write_json(path: pathlib.Path, content: Mapping[str, Any]) -> None:
  """Writes a whole JSON file, flushed to the disk, or changes nothing."""
  text = json.dumps(content, indent=1) + "\n"
  with folders.new_file(path) as file:
    file.write(text.encode())
  sync_folder(path.parent)


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """Reads a JSON file of a store.

  Raises:
    StoreError: If it is missing or no JSON.
  """
  try:
    return json.loads(path.read_bytes())
  except (OSError, ValueError) as error:
    raise errors.damaged(path, str(error)) from error


def sync_folder(path: pathlib.Path) -> None:
  """Makes new names in a folder outlive a power cut."""
  handle = os.open(path, os.O_RDONLY)
  try:
    os.fsync(handle)
  finally:
    os.close(handle)


def write_manifest(
  store: pathlib.Path, layout: Layout, manifest: Manifest
) -> None:
  """Says what a new store is."""
  about = {"format": FORMAT, "version": VERSION, "layout": layout.to_dict()}
  columns = {"token_columns": list(TOKEN_COLUMNS)}
  content = {**about, **columns, "capture": manifest.to_dict()}
  write_json(store / MANIFEST, content)


def read_manifest(store: pathlib.Path) -> tuple[Layout, Manifest]:
  """What a store is.

  Raises:
    StoreError: If the folder is no store, or one of another version.
  """
  if not (store / MANIFEST).is_file():
    raise errors.StoreError(
      "There is no activation store here.",
      received=str(store),
      instead="the folder that gemma-scope capture --out wrote",
    )
  found = read_json(store / MANIFEST)
  if found.get("format") != FORMAT or found.get("version") != VERSION:
    raise errors.StoreError(
      "The manifest is not that of a store this version reads.",
      received=f"{found.get('format')}, version {found.get('version')}",
      instead=f"a store of version {VERSION}; capture it anew",
    )
  try:
    widths = found["layout"].pop("widths")
    sites = {resolve(k, _MANY_LAYERS)[0]: int(w) for k, w in widths.items()}
    layout = Layout(sites, **found["layout"])
    return layout, Manifest(**found["capture"])
  except (KeyError, TypeError, AttributeError) as error:
    raise errors.damaged(store / MANIFEST, repr(error)) from error


def write_zarr(store: pathlib.Path, layout: Layout, rows: int) -> None:
  """Writes the zarr3 metadata of all arrays, for `rows` rows."""
  group = {"zarr_format": 3, "node_type": "group", "attributes": {}}
  write_json(store / "zarr.json", group)
  for array in layout.arrays.values():
    node = _zarr_array(array, rows, layout.shard_rows)
    write_json(store / array.name / "zarr.json", node)


def _zarr_array(array: ArraySpec, rows: int, shard_rows: int) -> dict[str, Any]:
  grid = {"chunk_shape": [shard_rows, array.width]}
  return {
    "zarr_format": 3,
    "node_type": "array",
    "shape": [rows, array.width],
    "data_type": array.dtype.name,
    "chunk_grid": {"name": "regular", "configuration": grid},
    "chunk_key_encoding": {
      "name": "default",
      "configuration": {"separator": "."},
    },
    "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
    "fill_value": 0,
    "dimension_names": ["row", None],
    "attributes": {},
  }
