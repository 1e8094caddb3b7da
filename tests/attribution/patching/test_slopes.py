"""Slopes against float64 finite differences, cell by cell."""

import jax.numpy as jnp
import numpy as np
from penzai import pz
import pytest

from gemma_scope import axes
from gemma_scope.attribution import logit_difference
from gemma_scope.attribution.pairs import to_pairs
from gemma_scope.attribution.patching.slopes import (
  effects,
  slopes,
  take,
  to_cells,
  values_at,
)
from gemma_scope.attribution.relevance import EMBED
from gemma_scope.sites import resolve
from tests.attribution.patching.patch_checks import TARGET, other_prompt

SITES = resolve(
  ["resid_pre[1]", "query[0]", "key[0]", "pattern[1]", "z[1]", "mlp_act[0]"], 2
)


@pytest.fixture(scope="module")
def found(double):
  """Values and slopes of both runs, and the cells made of them."""
  source = other_prompt(double.ids)
  *_, pairs = to_pairs(double.lm, source, double.ids, logit_difference(7, 9))
  model, target = double.lm.model, pairs.target
  _, theirs = values_at(model, pairs.source, target, SITES)
  value, ours, slope = slopes(model, pairs.base, target, SITES)
  return value, ours, slope, effects(theirs, ours, slope)


@pytest.mark.parametrize("site", SITES, ids=str)
def test_cells_are_finite_differences(double, found, site):
  *_, cells = found
  ours = cells[site].unwrap(*cells[site].named_axes)[0]
  base = double.site(site)
  change = double.site(site, other_prompt(double.ids)) - base
  seq = site.info.axes.index(axes.SEQ) - 1
  heads = [n in (axes.HEADS, axes.KV_HEADS) for n in site.info.axes[1:]]
  for position in (2, 4):
    where = [slice(None)] * base.ndim
    where[seq] = position
    if any(heads):
      where[heads.index(True)] = 1
    direction = np.zeros_like(base)
    direction[tuple(where)] = change[tuple(where)]
    # The edit is base + t direction, whatever the value it is given.
    slope = double.slope(TARGET, site, direction, baseline=base - 1.0)
    index = (position, 1) if any(heads) else (position,)
    np.testing.assert_allclose(ours[index], slope, rtol=2e-3, atol=2e-6)


def test_shift_moves_the_embeddings(double, found):
  source = other_prompt(double.ids)
  *_, pairs = to_pairs(double.lm, source, double.ids, logit_difference(7, 9))
  model, target = double.lm.model, pairs.target
  top, theirs = values_at(model, pairs.source, target, (EMBED,))
  _, ours = values_at(model, pairs.base, target, (EMBED,))
  value, values, _ = slopes(
    model, pairs.base, target, SITES, theirs[EMBED] - ours[EMBED]
  )
  np.testing.assert_allclose(value, top, rtol=1e-5)
  _, expected = values_at(model, pairs.source, target, SITES)
  for site in SITES:
    np.testing.assert_allclose(
      values[site].unwrap(*site.info.axes),
      expected[site].unwrap(*site.info.axes),
      atol=1e-4,
    )


def test_elements_add_up_to_cells(double, found):
  value, ours, slope, cells = found
  zeros = {s: 0 * v for s, v in ours.items()}
  back = effects(zeros, ours, slope)
  single = effects(zeros, ours, slope, per_element=True)
  for site in SITES:
    # The sums are taken in another order, and some of them cancel.
    np.testing.assert_allclose(
      to_cells(single[site]).data_array, back[site].data_array, atol=1e-6
    )
    assert single[site].named_axes == ours[site].named_axes
  assert value.shape == (1,)
  names = {s.name: tuple(c.named_axes) for s, c in cells.items()}
  assert names["key"] == (axes.BATCH, axes.SEQ, axes.KV_HEADS)
  assert names["pattern"] == (axes.BATCH, axes.SEQ, axes.HEADS)
  assert names["mlp_act"] == (axes.BATCH, axes.SEQ)


def test_take_repeats_rows():
  value = pz.nx.wrap(jnp.arange(6.0).reshape(3, 2), axes.BATCH, axes.SEQ)
  site = resolve("mlp_act[0]", 1)[0]
  found = take({site: value}, jnp.asarray([2, 2, 0]))[site]
  np.testing.assert_array_equal(found.data_array[:, 0], [4, 4, 0])
  assert dict(found.named_shape) == {axes.BATCH: 3, axes.SEQ: 2}
