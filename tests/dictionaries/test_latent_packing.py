"""Packed tables come back to within half a step."""

import dataclasses

import numpy as np
import pytest

from gemma_scope.dictionaries.latent_packing import pack_table, unpack_table
from gemma_scope.dictionaries.latent_table import NOTHING
from gemma_scope.testing.latents import random_table


@pytest.fixture(params=[512, 262_144])
def table(request):
  return random_table(40, vocabulary=request.param)


@pytest.fixture
def again(table):
  return unpack_table(pack_table(table))


def test_what_stays_exact(table, again):
  for name in ("tokens", "logit_tokens", "frequencies", "maxima"):
    np.testing.assert_array_equal(getattr(again, name), getattr(table, name))
  assert (again.tokens == NOTHING).any()
  assert again.counted == table.counted


def test_activations(table, again):
  step = np.where(table.dead, 1, table.maxima)[:, None, None] / 255
  off = np.abs(again.activations - table.activations) / step
  plain = (table.activations == 0) | (table.activations > 0.5 * step)
  assert (off[plain] <= 0.501).all()
  assert (off <= 1).all()  # what is fainter is raised to one step


def test_faint_activations_do_not_vanish(table):
  faint = np.where(table.activations > 0, table.activations, 0)
  faint[0, 0, 0] = table.maxima[0] / 10_000
  made = dataclasses.replace(table, activations=faint)
  again = unpack_table(pack_table(made))
  assert ((again.activations > 0) == (faint > 0)).all()


def test_logits(table, again):
  step = np.abs(table.logit_values).max((1, 2))[:, None, None] / 127
  off = np.abs(again.logit_values - table.logit_values)
  assert (off <= 0.501 * step).all()


def test_histograms(table, again):
  # Half a step of the logarithm, and half a token for whole numbers.
  np.testing.assert_allclose(
    again.histograms, table.histograms, rtol=2**0.05 - 1, atol=0.5
  )
  wide = table.histograms.copy()
  wide[0] = 5
  made = dataclasses.replace(table, histograms=wide)
  row = unpack_table(pack_table(made)).histograms[0]
  assert (row[:48] == 0).all()
  assert (row[49:] == 5).all()
  assert row[48] == pytest.approx(5 * 49, rel=0.04)


def test_counts_of_millions(table):
  made = dataclasses.replace(table, histograms=table.histograms * 20_000)
  again = unpack_table(pack_table(made))
  np.testing.assert_allclose(again.histograms, made.histograms, rtol=0.04)


def test_dead_latents(again):
  assert again.dead[1]
  assert again.top(1) == []
  assert again.histogram(1) == []
