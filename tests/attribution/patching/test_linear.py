"""Relevance patching against relevance, and under the empty table."""

import numpy as np
import pytest

import gemma_scope as gs
from gemma_scope.attribution import logit_difference
from gemma_scope.attribution.composites import ATTN_LRP, CP_LRP, GRADIENT
from gemma_scope.attribution.patching.approximate import approximate_patching
from gemma_scope.attribution.patching.question import EstimateOptions
from tests.attribution.patching.patch_checks import cells_of, other_prompt

AT = ["embed", "value[1]", "mlp_act[0]", "mlp_write[0]"]
WANTED = logit_difference(7, 9)


def estimates(double, method, options=None, at=tuple(AT)):
  return approximate_patching(
    double.lm,
    other_prompt(double.ids),
    double.ids,
    WANTED,
    method=method,
    at=at,
    options=options,
  )


def test_relp_under_the_empty_table_is_attribution_patching(double):
  plain = estimates(double, "attribution_patching")
  empty = estimates(double, "relp", EstimateOptions(rules=GRADIENT))
  ruled = estimates(double, "relp")
  for site in plain:
    expected = cells_of(plain, site)
    np.testing.assert_array_equal(cells_of(empty, site), expected)
    assert np.abs(cells_of(ruled, site) - expected).max() > 1e-3


@pytest.mark.parametrize(
  ("name", "rules"), [("cp_lrp", CP_LRP), ("attn_lrp", ATTN_LRP)]
)
def test_relp_multiplies_the_change_with_the_coefficient(double, name, rules):
  options = EstimateOptions(rules=rules, per_element=True)
  found = estimates(double, "relp", options)
  relevance = gs.attribute(double.lm, double.ids, WANTED, method=name, at=AT)
  ours, theirs = (
    gs.capture(double.lm, ids, AT)
    for ids in (double.ids, other_prompt(double.ids))
  )
  for site in found:
    value, other = cells_of(ours, site), cells_of(theirs, site)
    # relevance = value x coefficient
    kept = np.abs(value) > 1e-3
    coefficient = cells_of(relevance, site)[kept] / value[kept]
    expected = (other - value)[kept] * coefficient
    np.testing.assert_allclose(
      cells_of(found, site)[kept], expected, rtol=1e-3, atol=1e-6
    )


def test_queries_have_no_part_where_patterns_are_constant(double):
  assert not cells_of(
    estimates(double, "relp", at=("query[0]",)), "query[0]"
  ).any()
