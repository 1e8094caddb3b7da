"""Attribution patching and relevance patching: one backward pass for all cells.

    attribution patching   (a_source - a_base) . d target / d a     at the base
    RelP                   (a_source - a_base) . coefficient        at the base

The coefficient is what layer-wise relevance propagation multiplies a value
with, under a rule table. The default, CP_LRP, has the rules of the paper: norm
scales and attention patterns held constant, activation functions replaced by
their share of the input, products of gate and value halved. With the pattern
held constant a query or key has no effect at all; ATTN_LRP gives them one.
Under the empty table RelP is attribution patching.

Both are exact to first order in a_source - a_base only.

Sources: Nanda 2023, "Attribution Patching: Activation Patching At Industrial
Scale"; Jafari et al. 2025, "RelP: Faithful and Efficient Circuit Discovery in
Language Models via Relevance Patching", section 3. LRP is reported to be
patented technology, free for research.
"""

from gemma_scope.attribution.composites import GRADIENT, RuleTable
from gemma_scope.attribution.patching.question import (
  Estimates,
  PatchQuestion,
)
from gemma_scope.attribution.patching.slopes import (
  effects,
  slopes,
  values_at,
)


def attribution_patching(question: PatchQuestion) -> Estimates:
  """Estimates by the gradient at the base."""
  return _estimates(question, GRADIENT)


def relevance_patching(question: PatchQuestion) -> Estimates:
  """Estimates by the propagation coefficients of `options.rules`.

  Raises:
    RuleError: If the table cannot pass relevance through the model.
  """
  return _estimates(question, question.options.rules)


def _estimates(question: PatchQuestion, rules: RuleTable) -> Estimates:
  q, pairs = question, question.pairs
  top, source = values_at(q.model, pairs.source, pairs.target, q.sites)
  bottom, base, slope = slopes(
    q.model, pairs.base, pairs.target, q.sites, rules=rules
  )
  values = effects(source, base, slope, q.options.per_element)
  return Estimates(top, bottom, values, {})
