"""Methods that are rule tables: input x gradient and relevance propagation.

    R(site) = value(site) x d target / d site     under a rule table

One backward pass for all sites (see `relevance`). LRP is reported to be
patented technology, free for research.
"""

from collections.abc import Mapping
import types

import numpy as np

from gemma_scope.attribution import composites
from gemma_scope.attribution.composites import RuleTable
from gemma_scope.attribution.methods.protocol import (
  Answer,
  Method,
  Question,
  nothing_promised,
)
from gemma_scope.attribution.relevance import promise, relevance

# Methods of one backward pass, by name.
TABLES: Mapping[str, RuleTable] = types.MappingProxyType(
  {
    "input_x_gradient": composites.GRADIENT,
    "attn_lrp": composites.ATTN_LRP,
    "cp_lrp": composites.CP_LRP,
    "lrp_epsilon": composites.LRP_EPSILON,
    "lrp_gamma": composites.LRP_GAMMA,
  }
)
# Those whose relevance promises to sum to the target.
CONSERVING = (composites.CP_LRP, composites.LRP_EPSILON, composites.LRP_GAMMA)


def table_method(rules: RuleTable) -> Method:
  """The method of a rule table; the empty one is input x gradient."""

  def run(question: Question) -> Answer:
    q = question
    value, values = relevance(q.model, q.rows, q.target, q.sites, rules)
    value = np.asarray(value)
    expected = nothing_promised(value, q.sites)
    if rules in CONSERVING:
      expected = {s: promise(s, q.target, value) for s in q.sites}
    return Answer(value, values, expected)

  return Method(run)
