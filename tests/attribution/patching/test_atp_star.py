"""Queries and keys through a softmax of their own; sizes without signs."""

import numpy as np
import pytest

from gemma_scope import errors
from gemma_scope.attribution import logit_difference
from gemma_scope.attribution.patching.approximate import approximate_patching
from gemma_scope.attribution.patching.question import EstimateOptions
from gemma_scope.sites import Site
from gemma_scope.testing.oracle import head_pattern
from tests.attribution.patching.patch_checks import (
  TARGET,
  cells_of,
  other_prompt,
)

AT = ("resid_pre[1]", "attn_in[1]", "query[:]", "key[:]", "value[1]")
GROUP = 2


def estimates(double, **options):
  return approximate_patching(
    double.lm,
    other_prompt(double.ids),
    double.ids,
    logit_difference(7, 9),
    method="atp_star",
    at=AT,
    options=EstimateOptions(**options),
  )


@pytest.fixture(scope="module")
def found(double):
  return estimates(double)


def pattern_effect(double, layer, query, key):
  """The slope of the target along the change of a layer's patterns."""
  scale = double.config.query_scalar**-0.5
  after = np.stack(
    [
      head_pattern(query[:, n] * scale, key[:, n // GROUP], 4)
      for n in range(query.shape[1])
    ]
  )
  site = Site("pattern", layer)
  base = double.site(site)
  # base + t (after - base) in the place of the pattern
  return double.slope(TARGET, site, after - base, baseline=base - 1.0)


@pytest.mark.parametrize("layer", [0, 1])
def test_queries_and_keys_go_through_their_softmax(double, found, layer):
  names = ("query", "key")
  base = {n: double.site(Site(n, layer)) for n in names}
  other = other_prompt(double.ids)
  source = {n: double.site(Site(n, layer), other) for n in names}
  for name, position, head in (
    ("query", 5, 2),
    ("query", 2, 0),
    ("key", 2, 0),
    ("key", 4, 1),
  ):
    patched = {n: base[n].copy() for n in names}
    patched[name][position, head] = source[name][position, head]
    expected = pattern_effect(double, layer, patched["query"], patched["key"])
    ours = cells_of(found, Site(name, layer))[position, head]
    np.testing.assert_allclose(ours, expected, rtol=3e-3, atol=1e-6)


def test_what_the_heads_read_is_the_sum_of_them(found):
  parts = [cells_of(found, f"{n}[1]").sum(1) for n in ("query", "key", "value")]
  np.testing.assert_allclose(
    cells_of(found, "attn_in[1]"), sum(parts), rtol=1e-4, atol=1e-6
  )


def test_sizes_are_means_over_drops(double, found):
  for site in found:
    size = np.asarray(found.magnitude(site).data_array)[0]
    assert (size >= 0).all()
    if site.name != "resid_pre" and site.layer == 1:
      # The last layer: dropping the layer before it changes nothing.
      np.testing.assert_allclose(size, np.abs(cells_of(found, site)), 1e-4)
  alone = estimates(double, grad_drop=False)
  assert not alone.magnitudes
  for site in found:
    np.testing.assert_allclose(
      cells_of(alone, site), cells_of(found, site), rtol=1e-4, atol=1e-6
    )


def test_single_elements_are_refused(double):
  with pytest.raises(errors.ConfigError, match="whole queries and keys"):
    estimates(double, per_element=True)
