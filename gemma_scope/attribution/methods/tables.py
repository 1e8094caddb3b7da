"""Methods that are rule tables: input x gradient and relevance propagation.

    R(site) = value(site) x d target / d site     under a rule table

One backward pass for all sites (see `relevance`). LRP is reported to be
patented technology, free for research.
"""

import numpy as np

from gemma_scope.attribution.composites import RuleTable
from gemma_scope.attribution.methods.protocol import (
  Answer,
  Method,
  Question,
  nothing_promised,
)
from gemma_scope.attribution.relevance import promise, relevance


def table_method(rules: RuleTable, *, conserves: bool) -> Method:
  """The method of a rule table.

  Args:
    rules: The table; the empty one is input x gradient.
    conserves: Whether its relevance promises to sum to the target.
  """

  def run(question: Question) -> Answer:
    q = question
    value, values = relevance(q.model, q.rows, q.target, q.sites, rules)
    value = np.asarray(value)
    expected = nothing_promised(value, q.sites)
    if conserves:
      expected = {s: promise(s, q.target, value) for s in q.sites}
    return Answer(value, values, expected)

  return Method(run)
