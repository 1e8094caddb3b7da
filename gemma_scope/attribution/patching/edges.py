"""Edge attribution patching, with integrated gradients (EAP-IG).

    score(u -> v) = sum over positions (write_u^source - write_u^base)
                    . mean over the path of d target / d (stream as v reads it)

The path moves the embeddings from base to source and everything follows. One
backward pass at each of its points gives the slopes of all readers. A reader's
slope is that of its own copy of the residual stream: through its pre-norm,
projection, QK-norm and rotation, and from there on through the whole model.

At a writer's output the slope is the sum of the slopes of all readers behind
it, for the stream adds. So a writer's scores add up to its node's estimate,
and those of a layer's heads to the estimate for `attn_write` (`edge_ports` says
how a head's share is defined).

Sources: Syed, Rager and Conmy 2023, "Attribution Patching Outperforms Automated
Circuit Discovery" (EAP, one gradient at the base); Hanna, Pezzelle and Belinkov
2024, "Have Faith in Faithfulness" (EAP-IG). It finds no circuit and measures no
faithfulness.
"""

import numpy as np
from penzai import pz

from gemma_scope import axes
from gemma_scope.activations.tokens import Input
from gemma_scope.attribution import gradients
from gemma_scope.attribution.composites import GRADIENT, RuleTable
from gemma_scope.attribution.objectives import ResolvedTarget, Target, logit
from gemma_scope.attribution.pairs import to_pairs
from gemma_scope.attribution.patching.edge_graph import (
  readers_of,
  upstream,
  writers_of,
)
from gemma_scope.attribution.patching.edge_paths import path_scores
from gemma_scope.attribution.patching.edge_scores import EdgeScores
from gemma_scope.attribution.patching.question import groups
from gemma_scope.errors import SiteError
from gemma_scope.model.gemma import Gemma
from gemma_scope.model.language_model import LanguageModel
from gemma_scope.model.site_layer import ActiveSite
from gemma_scope.model.stack import active_sites
from gemma_scope.sites import Site

EDGE_TOKENS = 512  # tokens of the pairs whose writes are held at once

# Between the stream and its writers and readers: an edit there is not seen.
PLAIN = (
  *("resid_pre", "attn_in", "query", "key", "value", "attn_proj"),
  *("attn_write", "resid_mid", "mlp_in", "resid_post"),
)
# A target that reads the stream itself has a part that goes past all readers.
BESIDE = ("embed", "resid_pre", "attn_in", "resid_mid", "resid_post")


def edge_attribution(
  lm: LanguageModel,
  source: Input,
  base: Input,
  target: Target | str | int,
  *,
  steps: int = 5,
  quadrature: str = "gauss_legendre",
  rules: RuleTable = GRADIENT,
  per_position: bool = False,
) -> EdgeScores:
  """Estimates what patching each edge between components does to a target.

  Args:
    lm: The model.
    source: Prompts that contributions are taken from.
    base: Prompts whose run they are put into, token for token.
    target: What is measured; a token alone means its logit.
    steps: Points of the path from base to source; 0 for the gradient at the
      base alone (EAP).
    quadrature: "gauss_legendre", "midpoint" or "trapezoid".
    rules: A rule table for the slopes; the empty one gives gradients.
    per_position: Whether scores keep the position of what is written.

  Raises:
    ConfigError: If the steps or the quadrature cannot be used.
    SiteError: If the model has edits in the graph's own parts, or the target
      reads the residual stream inside the model.
    TextError: If the prompts or the target cannot be used together.
  """
  _check_plain(lm.model)
  if not isinstance(target, Target):
    target = logit(target)
  _, tokens, pairs = to_pairs(lm, source, base, target)
  _check_target(pairs.target, lm.config.num_layers)
  nodes = _nodes(quadrature, steps)
  parts = []
  for some, count in groups(pairs, EDGE_TOKENS):
    found = path_scores(lm.model, some, nodes, rules, per_position)
    parts.append([array[:count] for array in found])
  values, tops, bottoms = (np.concatenate(part) for part in zip(*parts))
  names = (axes.BATCH, axes.COMPONENT, axes.READER)
  writers, readers = writers_of(lm.config), readers_of(lm.config)
  mask = upstream(writers, readers)[None]
  if per_position:
    values, names = values[..., : tokens.width], (*names, axes.SEQ)
    mask = mask[..., None]
  return EdgeScores(
    writers,
    readers,
    pz.nx.wrap(np.where(mask, values, np.float32(0)), *names),
    tops,
    bottoms,
    lm.config.num_heads // lm.config.num_kv_heads,
  )


def _nodes(name: str, steps: int) -> tuple[np.ndarray, np.ndarray]:
  """Points of the path and their weights; the base alone for no steps."""
  if steps == 0:
    return np.zeros(1, np.float32), np.ones(1, np.float32)
  return gradients.quadrature(name, steps)


def _check_plain(model: Gemma) -> None:
  """Raises SiteError if an edit stands between the stream and its ports."""
  edits = active_sites(model.stack)
  names = {site.name for site in edits if isinstance(site, ActiveSite)}
  found = names & set(PLAIN)
  if found:
    raise SiteError(
      "An edit between the residual stream and its writers and readers would "
      "not be seen by the scores of edges.",
      received=f"a model with edits at {', '.join(sorted(found))}",
      instead="edits at embed, pattern, z, mlp_act, mlp_proj or mlp_write",
    )


def _check_target(target: ResolvedTarget, num_layers: int) -> None:
  """Raises SiteError if a target sees the stream past all readers."""
  last = Site("resid_post", num_layers - 1)
  beside = [s for s in target.reads if s.name in BESIDE and s != last]
  if beside:
    raise SiteError(
      "A target that reads the residual stream itself has no edge of its own.",
      received=f"a target that reads {', '.join(map(str, beside))}",
      instead=f"logits, {last}, or what a head or feed-forward computes",
    )
