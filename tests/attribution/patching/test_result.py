"""What a sweep says about its numbers."""

import json

import numpy as np
from penzai import pz
import pytest

from gemma_scope.activations.tokens import TokenBatch
from gemma_scope.attribution.patching.result import PatchSweep, strongest
from gemma_scope.sites import Site

NAN = np.nan


@pytest.fixture
def sweep():
  """Two pairs; the second has one token less, and source equal to base."""
  ids = np.asarray([[2, 5], [2, 0]], np.int32)
  tokens = TokenBatch(ids, (ids != 0).astype(np.int32), True)
  stream = np.asarray([[1.0, 3.0], [2.5, NAN]], np.float32)
  heads = np.asarray(
    [[[1.0, 1.5], [-2.0, 1.0]], [[2.0, 2.0], [NAN, NAN]]], np.float32
  )
  return PatchSweep(
    {
      Site("resid_pre", 0): pz.nx.wrap(stream, "batch", "seq"),
      Site("z", 0): pz.nx.wrap(heads, "batch", "seq", "heads"),
    },
    source=np.asarray([3.0, 2.0], np.float32),
    base=np.asarray([1.0, 2.0], np.float32),
    columns=np.asarray([[0, 1], [0, -1]]),
    tokens=tokens,
    source_tokens=tokens,
    pieces=(("<bos>", " John"), ("<bos>",)),
    source_pieces=(("<bos>", " Mary"), ("<bos>",)),
  )


def test_effect_and_share(sweep):
  effect = np.asarray(sweep.effect()["resid_pre[0]"].data_array)
  np.testing.assert_allclose(effect, [[0, 2], [0.5, NAN]])
  share = np.asarray(sweep.normalised()["resid_pre[0]"].data_array)
  np.testing.assert_allclose(share, [[0, 1], [NAN, NAN]])
  heads = np.asarray(sweep.normalised()["z[0]"].data_array)
  np.testing.assert_allclose(heads[0], [[0, 0.25], [-1.5, 0]])


def test_best_cells_come_by_size(sweep):
  first, second, third = sweep.best(3)
  assert (first.label, first.position, first.head) == ("z[0] head 0", 1, 0)
  assert (first.target, first.effect, first.normalised) == (-2, -3, -1.5)
  assert (first.token, first.source_token) == (" John", " Mary")
  assert (second.label, second.effect) == ("resid_pre[0]", 2)
  assert {third.effect} == {0.5}
  assert len(sweep.best(100)) == 9  # every run that there was
  assert [c.row for c in sweep.best(5, row=1)] == [1, 1, 1]


def test_as_json(sweep):
  found = sweep.to_dict()
  json.dumps(found, allow_nan=False)
  assert found["format"] == "gemma-scope/patching"
  assert found["source"] == [3.0, 2.0]
  assert found["columns"] == [[0, 1], [0, -1]]
  first, second = found["sites"]
  assert first["site"] == "resid_pre[0]"
  assert first["target"] == [[1.0, 3.0], [2.5, None]]
  assert second["axes"] == ["batch", "seq", "heads"]


def test_as_a_notebook_cell(sweep):
  shown = sweep._repr_html_()
  assert shown.count("<table") == 4  # two sites, two pairs
  assert " John ←  Mary" in shown
  assert "head 1" in shown
  assert "NaN" not in shown
  assert repr(sweep).startswith("PatchSweep(9 runs")


def test_labels_without_positions(sweep):
  whole = PatchSweep(
    {Site("resid_pre", 0): pz.nx.wrap(np.ones(2, np.float32), "batch")},
    sweep.source,
    sweep.base,
    None,
    *(sweep.tokens, sweep.tokens, sweep.pieces, sweep.pieces),
  )
  assert whole.best(1)[0].position is None
  assert whole.best(1)[0].token == ""
  assert "all positions" in whole._repr_html_()
  assert whole.to_dict()["columns"] is None


def test_strongest_keeps_the_sign():
  values = np.asarray([[1.0, NAN, NAN], [-2.0, 0.5, NAN]])
  np.testing.assert_array_equal(strongest(values, 0), [-2.0, 0.5, NAN])
