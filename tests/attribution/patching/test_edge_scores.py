"""Choosing among edges."""

import numpy as np
from penzai import pz
import pytest

from gemma_scope import axes, errors
from gemma_scope.attribution.patching.edge_graph import (
  readers_of,
  upstream,
  writers_of,
)
from gemma_scope.attribution.patching.edge_scores import EdgeScores
from gemma_scope.testing.tiny import tiny_config

CONFIG = tiny_config(num_layers=2)
NAMES = (axes.BATCH, axes.COMPONENT, axes.READER)


@pytest.fixture
def scores():
  writers, readers = writers_of(CONFIG), readers_of(CONFIG)
  mask = upstream(writers, readers)
  rng = np.random.default_rng(0)
  values = rng.normal(size=(2, *mask.shape)).astype(np.float32) * mask
  values = pz.nx.wrap(values, *NAMES)
  zeros = np.zeros(2, np.float32)
  return EdgeScores(writers, readers, values, zeros, zeros, 2)


def test_top_and_looking_up(scores):
  top = scores.top(5)
  sizes = [abs(edge.score) for edge in top]
  assert sizes == sorted(sizes, reverse=True)
  assert sizes[0] == np.abs(scores.matrix).max()
  for edge in top:
    assert scores[str(edge.writer), edge.reader] == edge.score
  assert len(scores.top(10_000)) == scores.present.sum()
  total = scores.matrix[0].sum()
  assert scores.node("embed") == pytest.approx(total)
  assert "final_norm" in scores._repr_html_() or "[" in scores._repr_html_()


def test_positions_add_up(scores):
  data = np.asarray(scores.values.data_array)
  split = np.stack([data, 2 * data], axis=-1)
  wide = EdgeScores(
    scores.writers,
    scores.readers,
    pz.nx.wrap(split, *NAMES, axes.SEQ),
    scores.source,
    scores.base,
    2,
  )
  np.testing.assert_allclose(wide.matrix, 3 * scores.matrix, rtol=1e-6)


def test_all_edges_are_connected(scores):
  count = int(scores.present.sum())
  assert len(scores.prune(count)) == count
  kept = scores.prune(12)
  assert set(kept) <= set(scores.top(12))


def test_wrong_questions_are_refused(scores):
  with pytest.raises(errors.SiteError, match="no such component"):
    _ = scores["attn_write[0]", "final_norm"]
  with pytest.raises(errors.SiteError, match="written behind it"):
    _ = scores["mlp_write[1]", "query[0].1"]
  with pytest.raises(errors.ConfigError, match="needs edges"):
    scores.prune(0)
