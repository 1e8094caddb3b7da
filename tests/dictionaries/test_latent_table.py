"""Tables of latents: examples, logits and histograms of one row."""

import dataclasses
import itertools

import numpy as np
import pytest

from gemma_scope.dictionaries.latent_table import EDGES, NOTHING
from gemma_scope.errors import ConfigError
from gemma_scope.testing.latents import random_table


@pytest.fixture
def table():
  return random_table(8)


def test_top_examples(table):
  found = table.top(0)
  assert len(found) == 3
  for rank, example in enumerate(found):
    strengths = table.activations[0, rank]
    assert example.activation == strengths.max()
    assert example.tokens.tolist() == table.tokens[0, rank].tolist()
    assert example.activations[example.index] == example.activation
  assert found[0].activation >= found[1].activation >= found[2].activation
  assert len(table.top(0, 2)) == 2


def test_what_is_not_there_is_left_out(table):
  assert table.top(1) == []
  assert len(table.top(2)) == 1
  first = table.top(3)[0]
  assert len(first.tokens) == 4
  assert NOTHING not in first.tokens
  assert first.activations[first.index] == table.activations[3, 0].max()


def test_logits(table):
  up, down = table.favoured(4), table.disfavoured(4)
  np.testing.assert_array_equal(up.tokens, table.logit_tokens[4, 0])
  np.testing.assert_array_equal(down.logits, table.logit_values[4, 1])
  assert up.logits[0] == up.logits.max() > 0 > down.logits[0]


def test_histogram(table):
  bins = table.histogram(0)
  assert [count for *_, count in bins] == table.histograms[0, 20:34].tolist()
  assert bins[0][0] == EDGES[20] == 1.0
  for (_, end, _), (start, _, _) in itertools.pairwise(bins):
    assert end == pytest.approx(start)
  assert table.histogram(1) == []


@pytest.mark.parametrize("latent", [-1, 8])
@pytest.mark.parametrize(
  "method", ["top", "favoured", "frequency", "histogram"]
)
def test_no_such_latent(table, latent, method):
  with pytest.raises(ConfigError, match=f"latent {latent}\n.*from 0 to 7"):
    getattr(table, method)(latent)


def test_columns_fit_together(table):
  with pytest.raises(ConfigError, match="do not fit together"):
    dataclasses.replace(table, maxima=table.maxima[:7])
