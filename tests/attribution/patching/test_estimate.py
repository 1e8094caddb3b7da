"""Looking up, stacking and summing estimates; padding."""

import numpy as np
from penzai import pz
import pytest

from gemma_scope import axes, errors
from gemma_scope.activations.tokens import TokenBatch
from gemma_scope.attribution.patching.estimate import PatchEstimate, trimmed
from gemma_scope.sites import Site

CELLS = (axes.BATCH, axes.SEQ, axes.HEADS)
TOKENS = TokenBatch(
  np.asarray([[5, 6, 7], [5, 0, 0]]), np.asarray([[1, 1, 1], [1, 0, 0]]), True
)


def estimate(**changes):
  value = np.arange(12.0, dtype=np.float32).reshape(2, 3, 2)
  parts = {
    "arrays": {Site("z", i): pz.nx.wrap(value + i, *CELLS) for i in (0, 1)},
    "method": "attribution_patching",
    "source": np.asarray([2.0, 0.0]),
    "base": np.asarray([1.0, 0.0]),
    "magnitudes": {},
    "tokens": TOKENS,
    "pieces": (("a", "b", "c"), ("a",)),
  }
  return PatchEstimate(**(parts | changes))


def test_positions_layers_and_sizes():
  found = estimate()
  np.testing.assert_array_equal(
    found.per_position("z[0]"), [[1, 5, 9], [13, 17, 21]]
  )
  stack = found.stacked("z")
  assert dict(stack.named_shape) == dict(
    zip((axes.LAYER, *CELLS), (2, 2, 3, 2))
  )
  assert float(stack.data_array[1, 0, 0, 0]) == 1.0
  with pytest.raises(errors.SiteError, match="not estimated"):
    found.stacked("query")
  with pytest.raises(errors.ConfigError, match="no magnitudes"):
    found.magnitude("z[0]")
  sized = estimate(magnitudes=found.arrays)
  assert sized.magnitude("z[1]") is found.arrays[Site("z", 1)]


def test_it_shows_itself():
  found = estimate()
  assert "z[0], z[1]" in repr(found)
  assert "1.000 to 2.000" in found._repr_html_()


def test_padding_is_cleared_and_added_columns_dropped():
  wide = pz.nx.wrap(np.ones((2, 5, 4)), axes.BATCH, axes.SEQ, axes.EMBEDDING)
  found = trimmed(wide, TOKENS)
  np.testing.assert_array_equal(
    found.data_array[..., 0], [[1, 1, 1], [1, 0, 0]]
  )
