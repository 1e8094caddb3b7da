"""The bookkeeping: every cell once, and results back where they belong."""

import numpy as np
import pytest

from gemma_scope import errors
from gemma_scope.attribution.patching.cells import columns_of, make_grid
from gemma_scope.attribution.patching.put import ALL
from gemma_scope.sites import resolve
from gemma_scope.testing.tiny import tiny_config

CONFIG = tiny_config()
LENGTHS = np.asarray([3, 2])


def grid(at, positions="each", *, each_head=True):
  sites = resolve(at, CONFIG.num_layers)
  columns = columns_of(positions, LENGTHS)
  return make_grid(sites, columns, 2, CONFIG, each_head=each_head)


def test_every_cell_goes_back_to_its_place():
  found = grid(["z[1,3]", "key[1]", "resid_pre[0]", "embed"])
  cells = found.cells
  assert len(cells) == 5 * (4 + 4 + 2 + 1 + 1)
  assert list(found.names) == ["embed", "resid_pre", "key", "z"]
  code = (
    1000 * cells.layer + 100 * cells.site + 10 * cells.position
  ) + cells.head
  by_site = found.results(code)
  for site, value in by_site.items():
    data = np.asarray(value.data_array)
    assert np.isnan(data[1, 2]).all()  # the shorter prompt has no third token
    data = np.delete(data.reshape(2, 3, -1), (), 0)
    start = 1000 * (site.layer or 0) + 100 * found.names.index(site.name)
    heads = data.shape[2]
    expected = [
      [start + 10 * p + (h if heads > 1 else ALL) for h in range(heads)]
      for p in range(3)
    ]
    np.testing.assert_array_equal(data[0], expected)
    np.testing.assert_array_equal(data[1, :2], expected[:2])


def test_cells_come_pair_by_pair_and_layer_by_layer():
  cells = grid(["resid_pre[:]", "z[2]"]).cells
  order = cells.pair.astype(int) * 100 + cells.layer
  assert (np.diff(order) >= 0).all()


def test_heads_and_positions_can_be_patched_together():
  found = grid(["z[2]", "resid_pre[0]"], "all", each_head=False)
  assert len(found.cells) == 4
  assert (found.cells.position == ALL).all()
  assert (found.cells.head == ALL).all()
  assert {s: v for s, (v, _) in found.shapes.items()} == dict.fromkeys(
    found.shapes, ("batch",)
  )


def test_columns_of_every_prompt():
  np.testing.assert_array_equal(
    columns_of("each", LENGTHS), [[0, 1, 2], [0, 1, -1]]
  )
  np.testing.assert_array_equal(columns_of([1, -1], LENGTHS), [[1, 2], [1, 1]])
  assert columns_of("all", LENGTHS) is None


@pytest.mark.parametrize(
  "positions", ["every", [], [2], [-3], [[0]], [0.5], [True]]
)
def test_positions_that_are_not_there_are_refused(positions):
  with pytest.raises(errors.TextError, match='"each", "all", or columns'):
    columns_of(positions, LENGTHS)
