"""Sizes of a sweep: little computed in vain, and inside the memory allowed."""

import math

import numpy as np
import pytest

from gemma_scope import errors
from gemma_scope.attribution import logit_difference
from gemma_scope.attribution.pairs import to_pairs
from gemma_scope.attribution.patching import chunks
from gemma_scope.attribution.patching.cells import columns_of, make_grid
from gemma_scope.attribution.patching.wavefront import Sizes, make_models
from gemma_scope.sites import resolve

MEMORY = 2**30


def question(lm, count, at=("resid_pre[:]", "mlp_write[:]")):
  text = [" the capital of France is"] * count
  _, batch, pairs = to_pairs(lm, text, text, logit_difference(7, 9))
  sites = resolve(at, lm.config.num_layers)
  columns = columns_of("each", batch.lengths)
  cells = make_grid(sites, columns, count, lm.config, each_head=True).cells
  return make_models(lm.model, sites, ()), pairs, cells


def test_best_rows_compute_the_least_in_vain():
  entering = np.full(18, 45)
  under_way = np.cumsum(entering) - entering

  def cost(rows, overhead):
    calls = sum(math.ceil(count / rows) for count in under_way)
    own = min(rows, 45)
    return calls * (rows + overhead) + 18 * math.ceil(45 / own) * (
      own + overhead
    )

  for most, overhead in ((1000, 4), (30, 4), (1, 4), (1000, 1e6)):
    found = chunks.best_rows(under_way, entering, most, overhead)
    every = [cost(r, overhead) for r in range(1, min(most, 765) + 1)]
    assert cost(found, overhead) == min(every)
  # Nothing in vain: every layer is whole chunks of what enters in one.
  assert chunks.best_rows(under_way, entering, 1000, 4) == 45
  # One call a layer, where calls are all that costs.
  assert chunks.best_rows(under_way, entering, 1000, 1e6) == 765


def test_chunks_shrink_until_they_fit(double):
  models, pairs, cells = question(double.lm, 3)
  wide = chunks.choose_sizes(models, pairs, cells, MEMORY)
  assert wide.runs >= wide.pairs * np.bincount(cells.pair).max()
  whole = chunks.program_bytes(models, pairs, wide)
  limit = int(0.4 * whole)
  narrow = chunks.choose_sizes(models, pairs, cells, 2 * limit)
  needed = chunks.program_bytes(models, pairs, narrow)
  assert limit / 4 < needed <= limit  # no smaller than need be
  assert 1 < narrow.rows < wide.rows
  stream = pairs.base.ids.shape[1] * double.config.d_model * 4
  assert narrow.capacity * stream <= limit


def test_program_bytes_are_those_of_the_compiler(double):
  """The largest activations alone bound it from below, ten times from above."""
  models, pairs, _ = question(double.lm, 1)
  rows, seq = 64, pairs.base.ids.shape[1]
  found = chunks.program_bytes(models, pairs, Sizes(1, 64, rows, rows))
  gate_up = rows * seq * 2 * double.config.d_ff * 4
  assert gate_up <= found <= 10 * gate_up
  half = chunks.program_bytes(models, pairs, Sizes(1, 64, 32, 32))
  assert half < 0.75 * found


def test_too_little_memory_is_refused(double):
  models, pairs, cells = question(double.lm, 1)
  with pytest.raises(errors.ConfigError, match=r"at least memory=[\d,]+"):
    chunks.choose_sizes(models, pairs, cells, 2**14)
  with pytest.raises(errors.ConfigError, match="does not hold a single run"):
    chunks.choose_sizes(models, pairs, cells, 100)


def test_waves_hold_every_cell_once_and_no_more_than_fit(double):
  _, _, cells = question(double.lm, 5)
  sizes = Sizes(pairs=2, runs=30, rows=8, entering=8)
  parts = list(chunks.waves(cells, sizes))
  np.testing.assert_array_equal(
    np.sort(np.concatenate(parts)), np.arange(len(cells))
  )
  for part in parts:
    assert len(part) <= sizes.runs
    assert len(set(cells.pair[part])) <= sizes.pairs
    assert (np.diff(cells.layer[part]) >= 0).all()


def test_a_given_chunk_is_taken_as_it_is(double):
  models, pairs, cells = question(double.lm, 1)
  sizes = chunks.fixed_sizes(models, pairs, cells, MEMORY, 5)
  assert (sizes.rows, sizes.entering) == (5, 5)
  assert len(cells) <= sizes.runs
  tight = chunks.fixed_sizes(models, pairs, cells, 1, 5)
  assert tight.runs == 5
