"""A small store whose every number can be computed from its row's index."""

import ml_dtypes
import numpy as np

from gemma_scope.activations.store import Layout, NewRows, StoreWriter
from gemma_scope.manifest import make_manifest
from gemma_scope.sites import Site

SITES = (Site("resid_post", 1), Site("mlp_in", 2))
WIDTHS = {SITES[0]: 8, SITES[1]: 5}
DTYPE = np.dtype(ml_dtypes.bfloat16)
LAYOUT = Layout(WIDTHS, "bfloat16", 10)
# Every batch has 7 tokens, one of which does not count.
COUNTED = np.array([False] + [True] * 6)


def rows_of(site: Site, indices) -> np.ndarray:
  """What the store shall hold at these rows: [n, width]."""
  index = np.asarray(indices)[:, None]
  columns = np.arange(WIDTHS[site])[None]
  values = np.sin(index * 1.7 + columns + SITES.index(site)) * 3
  return values.astype(DTYPE)


def tokens_of(indices) -> np.ndarray:
  """[n, 6] int32."""
  index = np.asarray(indices)
  place = index % 6
  columns = (
    index * 3,
    index // 6,
    place + 1,
    place // 3 + 1,
    index // 12,
    place,
  )
  return np.stack(columns, axis=1).astype(np.int32)


def batch_of(number: int) -> NewRows:
  """Batch `number`: rows 6 * number and the five after it."""
  indices = np.arange(6 * number - 1, 6 * number + 6)
  values = {site: rows_of(site, indices) for site in SITES}
  norms = {
    site: np.linalg.norm(rows.astype(np.float32), axis=1)
    for site, rows in values.items()
  }
  return NewRows(values, norms, tokens_of(indices), COUNTED)


def manifest(seed: int = 0):
  return make_manifest({"text": "synthetic"}, model="tiny", seed=seed)


def write(path, batches: int, layout: Layout = LAYOUT, host: int = 0) -> None:
  """Goes on until a store has so many batches, a commit after each."""
  with StoreWriter(path, layout, manifest(), host=host) as writer:
    for number in range(writer.batches, batches):
      writer.append(batch_of(number))
      writer.commit({"batch": number + 1})


def contents(path) -> dict[str, bytes]:
  """Every file of a store but its lock and its manifest, which has a date."""
  left_out = ("manifest.json", ".lock")
  return {
    file.relative_to(path).as_posix(): file.read_bytes()
    for file in sorted(path.rglob("*"))
    if file.is_file() and not file.name.endswith(left_out)
  }
