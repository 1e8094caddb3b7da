import numpy as np

from gemma_scope.attribution.attribute import attribute
from gemma_scope.attribution.objectives import log_prob, logit
from gemma_scope.sites import Site

AT = ("embed", "mlp_act[0]", "resid_mid[1]", "final_norm")


def test_conserved_relevance_promises_where_all_of_it_passes(double):
  result = attribute(
    double.lm, double.ids, logit(" Paris"), method="cp_lrp", at=AT
  )
  for site in result:
    if site == Site("mlp_act", 0):
      assert np.isnan(result.expected[site]).all()
    else:
      np.testing.assert_array_equal(result.expected[site], result.target)
      assert abs(result.residual(site)[0]) < 1e-4


def test_others_promise_nothing(double):
  for method, target in (
    ("attn_lrp", logit(" Paris")),
    ("cp_lrp", log_prob(" Paris")),
  ):
    result = attribute(double.lm, double.ids, target, method=method, at=AT)
    assert all(np.isnan(result.expected[site]).all() for site in result)
