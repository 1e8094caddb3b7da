"""Layer-wise relevance of every site of a model, in one backward pass.

    R(site) = value(site) x d target / d site     under a rule table

The derivative at a site is that of an offset of zero added there, so tokens,
residual streams, heads and neurons are read from the same pass. The embeddings
always count as input: relevance at a site does not depend on which other sites
are asked for. Under a conservative table (CP_LRP, LRP_EPSILON) the relevance of
each layer's residual stream sums to the target.
"""

import dataclasses
import functools

import jax
from jaxtyping import Array, Float
import numpy as np
from penzai import pz

from gemma_scope.attribution.composites import RuleTable
from gemma_scope.attribution.evaluate import evaluate, zero_offsets
from gemma_scope.attribution.gradients import value_x_gradient
from gemma_scope.attribution.objectives import ResolvedTarget
from gemma_scope.attribution.rows import Rows, Values
from gemma_scope.attribution.transform import transform
from gemma_scope.model import gemma
from gemma_scope.sites import Site
from gemma_scope.surgery.rule_scope import rule_scope
from gemma_scope.surgery.select import offset, tap

# Sites that all relevance passes.
WHOLE = ("embed", "resid_pre", "resid_mid", "resid_post", "final_norm")


EMBED = Site("embed")


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
  value, values, slopes = values_and_slopes(model, rows, target, sites, rules)
  return value, jax.tree.map(value_x_gradient, values, slopes)


def values_and_slopes(
  model: gemma.Gemma,
  rows: Rows,
  target: ResolvedTarget,
  sites: tuple[Site, ...],
  rules: RuleTable,
  shift: pz.nx.NamedArray | None = None,
) -> tuple[Float[Array, " batch"], Values, Values]:
  """Values at some sites, and the target's derivative there under a table.

  The embeddings always count as input, so that what a rule makes of a product
  does not depend on which sites are asked for.

  Args:
    model: The model.
    rows: The prompts.
    target: What is explained.
    sites: The sites.
    rules: A rule table; the empty one gives the gradient.
    shift: What is added to the embeddings, for a point of a path that is no
      text.

  Returns:
    The target of each row, site -> value, site -> derivative in its dtype.

  Raises:
    RuleError: If the table cannot pass relevance through the model.
  """
  model, rules = placed(model, rules)
  every = tuple(dict.fromkeys((*sites, EMBED)))
  start = zero_offsets(model, rows, every)
  if shift is not None:
    start[EMBED] = shift
  changed = tap(offset(model, every), sites)

  def total(
    asked: Values, others: Values
  ) -> tuple[jax.Array, tuple[jax.Array, Values]]:
    value, taps = evaluate(changed, rows, target, others | asked)
    return value.sum(), (value, {site: taps[site] for site in sites})

  ruled = transform(total, rules, argnums=(0, 1), has_aux=True)
  asked = {site: start[site] for site in sites}
  slopes, (value, values) = jax.grad(ruled, has_aux=True)(asked, start)
  return value, values, slopes


def promise(
  site: Site, target: ResolvedTarget, value: np.ndarray
) -> np.ndarray:
  """[batch] what conserved relevance of a site adds up to; NaN if unknown.

  All relevance passes the residual stream, and only there, up to what the
  target reads; what it is then worth is known where the target is linear.

  Args:
    site: The site.
    target: What is explained.
    value: [batch] its value.
  """
  whole = site.name in WHOLE and all(site <= read for read in target.reads)
  return value if whole and target.linear else np.full_like(value, np.nan)


def placed(
  model: gemma.Gemma, rules: RuleTable
) -> tuple[gemma.Gemma, RuleTable]:
  """A table's rules for places of a model, as rule scopes of the model.

  Raises:
    SiteError: If the model has no such place.
  """
  for where, narrowed in rules.places:
    model = rule_scope(model, where, narrowed)
  return model, dataclasses.replace(rules, places=())
