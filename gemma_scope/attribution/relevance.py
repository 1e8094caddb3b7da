"""Layer-wise relevance of every site of a model, in one backward pass.

    R(site) = value(site) x d target / d site     under a rule table

The derivative at a site is that of an offset of zero added there, so tokens,
residual streams, heads and neurons are read from the same pass. The embeddings
always count as input: relevance at a site does not depend on which other sites
are asked for. Under a conservative table (CP_LRP, LRP_EPSILON) the relevance of
each layer's residual stream sums to the target.
"""

import functools

import jax
from jaxtyping import Array, Float

from gemma_scope.attribution.composites import RuleTable
from gemma_scope.attribution.evaluate import evaluate, zero_offsets
from gemma_scope.attribution.gradients import value_x_gradient
from gemma_scope.attribution.objectives import ResolvedTarget
from gemma_scope.attribution.rows import Rows, Values
from gemma_scope.attribution.transform import transform
from gemma_scope.model import gemma
from gemma_scope.sites import Site
from gemma_scope.surgery.select import offset, tap


@functools.partial(jax.jit, static_argnames=("sites", "rules"))
def relevance(
  model: gemma.Gemma,
  rows: Rows,
  target: ResolvedTarget,
  sites: tuple[Site, ...],
  rules: RuleTable,
) -> tuple[Float[Array, " batch"], Values]:
  """Relevance at every site under a rule table.

  Returns:
    The target's value of each row, and float32 relevance by site.

  Raises:
    RuleError: If the table cannot pass relevance through the model.
  """
  every = tuple(dict.fromkeys((*sites, Site("embed"))))
  zeros = zero_offsets(tap(model, every), rows, target, every)
  changed = tap(offset(model, every), sites)

  def total(
    asked: Values, others: Values
  ) -> tuple[jax.Array, tuple[jax.Array, Values]]:
    value, taps = evaluate(changed, rows, target, others | asked)
    return value.sum(), (value, {site: taps[site] for site in sites})

  ruled = transform(total, rules, argnums=(0, 1), has_aux=True)
  asked = {site: zeros[site] for site in sites}
  gradients, (value, values) = jax.grad(ruled, has_aux=True)(asked, zeros)
  return value, jax.tree.map(value_x_gradient, values, gradients)
