"""Relevance for many targets at once: one forward pass, all backward ones.

    R_t(site) = value(site) x d target_t / d site     for every target t

The targets share the prompts, and with them everything that is computed before
the targets differ; the backward passes run side by side as one vmap. For
methods of one backward pass: a rule table, or plain gradients.
"""

from collections.abc import Callable, Iterable, Sequence
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

from gemma_scope.activations.tokens import Input, TokenBatch, to_tokens
from gemma_scope.attribution.attribute import checked_sites, trimmed
from gemma_scope.attribution.composites import RuleTable
from gemma_scope.attribution.evaluate import ask, evaluate, zero_offsets
from gemma_scope.attribution.gradients import value_x_gradient
from gemma_scope.attribution.methods.tables import CONSERVING, TABLES
from gemma_scope.attribution.objectives import ResolvedTarget, Target, logit
from gemma_scope.attribution.relevance import placed, promise
from gemma_scope.attribution.result import Attribution
from gemma_scope.attribution.rows import Rows, Values
from gemma_scope.attribution.transform import transform
from gemma_scope.errors import ConfigError
from gemma_scope.model import gemma
from gemma_scope.model.language_model import LanguageModel
from gemma_scope.sites import Site
from gemma_scope.surgery.select import offset, tap

Progress = Callable[[str, float], None]

TARGETS_AT_ONCE = 8  # backward passes side by side: bounds the memory


def attribute_many(
  lm: LanguageModel,
  given: Input,
  targets: Sequence[Target | str | int],
  *,
  method: str | RuleTable = "attn_lrp",
  at: Iterable[Site | str] = ("embed",),
  progress: Progress | None = None,
) -> tuple[Attribution, ...]:
  """How much each element of some sites contributes to each of many targets.

  Args:
    lm: The model.
    given: Text, texts, or token ids, the same for all targets.
    targets: What is explained; of one kind, such as logits or log-probabilities
      alone. Positions may differ.
    method: A key of `TABLES`, or a rule table.
    at: Addresses of the sites, such as "embed" or "resid_post[:]".
    progress: Called with a label and the fraction done.

  Returns:
    What `gs.attribute` returns, for each target.

  Raises:
    ConfigError: If there is no such method, or the targets are of several
      kinds.
    SiteError: If a site is unknown or cannot be attributed to.
    TextError: If the prompts or a target cannot be used.
  """
  rules = _table(method)
  sites = checked_sites(at, lm.config.num_layers)
  asked = [t if isinstance(t, Target) else logit(t) for t in targets]
  batch, rows, resolved = _ask_all(lm, given, asked)
  answers: list[tuple[np.ndarray, Values]] = []
  for start in range(0, len(asked), TARGETS_AT_ONCE):
    some = slice(start, start + TARGETS_AT_ONCE)
    answers += _unstacked(
      relevances(
        *(lm.model, rows[0], _stacked([r.columns for r in rows[some]])),
        *(_stacked(resolved[some]), sites, rules),
      )
    )
    if progress is not None:
      progress("Attributing", len(answers) / len(asked))
  pieces = batch.pieces(lm.tokenizer)
  made = []
  for (value, found), target in zip(answers, resolved):
    unknown = np.full_like(value, np.nan)
    expected = {
      site: promise(site, target, value) if rules in CONSERVING else unknown
      for site in sites
    }
    arrays = {s: trimmed(v, rows[0], batch.width) for s, v in found.items()}
    made.append(
      Attribution(arrays, _name(method), value, expected, batch, pieces)
    )
  return tuple(made)


@functools.partial(jax.jit, static_argnames=("sites", "rules"))
def relevances(
  model: gemma.Gemma,
  rows: Rows,
  columns: Int[Array, "targets batch"],
  targets: ResolvedTarget,
  sites: tuple[Site, ...],
  rules: RuleTable,
) -> tuple[Float[Array, "targets batch"], Values]:
  """Relevance at every site for stacked targets, by one forward pass.

  Args:
    model: The model.
    rows: The prompts.
    columns: Each target's column in each row.
    targets: Targets whose arrays have an axis in front.
    sites: The sites.
    rules: A rule table.

  Returns:
    Each target's value, and float32 relevance by site with the axis `targets`
    in front.

  Raises:
    RuleError: If the table cannot pass relevance through the model.
  """
  model, rules = placed(model, rules)
  every = tuple(dict.fromkeys((*sites, Site("embed"))))
  zeros = zero_offsets(model, rows, every)
  changed = tap(offset(model, every), sites)

  def one(
    column: Int[Array, " batch"], target: ResolvedTarget, inputs: Values
  ) -> tuple[jax.Array, Values]:
    moved = dataclasses.replace(rows, columns=column)
    value, taps = evaluate(changed, moved, target, inputs)
    return value, {site: taps[site] for site in sites}

  def totals(asked: Values, others: Values) -> tuple[jax.Array, Any]:
    each = jax.vmap(one, in_axes=(0, 0, None), out_axes=(0, None))
    values, taps = each(columns, targets, others | asked)
    return values.sum(axis=1), (values, taps)

  ruled = transform(totals, rules, argnums=(0, 1), has_aux=True)
  asked = {site: zeros[site] for site in sites}
  _, back, (values, taps) = jax.vjp(ruled, asked, zeros, has_aux=True)
  unit = jnp.eye(columns.shape[0], dtype=jnp.float32)
  slopes, _ = jax.vmap(back)(unit)
  spread = jax.vmap(value_x_gradient, in_axes=(None, 0))
  return values, jax.tree.map(spread, taps, slopes)


def _table(method: str | RuleTable) -> RuleTable:
  """The rule table that a method is.

  Raises:
    ConfigError: If it is none.
  """
  if isinstance(method, RuleTable):
    return method
  if method not in TABLES:
    raise ConfigError(
      "There is no such method of one backward pass.",
      received=f"method={method!r}",
      instead=" or ".join(f"method={name!r}" for name in TABLES),
    )
  return TABLES[method]


def _name(method: str | RuleTable) -> str:
  return method.name if isinstance(method, RuleTable) else method


def _ask_all(
  lm: LanguageModel, given: Input, targets: Sequence[Target]
) -> tuple[TokenBatch, list[Rows], list[ResolvedTarget]]:
  """The prompts once, and rows and arrays of every target.

  Raises:
    ConfigError: If there are no targets, or their arrays cannot be stacked.
  """
  batch = to_tokens(lm, given)
  asked = [ask(lm, batch, target) for target in targets]
  shapes = {
    (jax.tree.structure(r), *(leaf.shape for leaf in jax.tree.leaves(r)))
    for _, _, r in asked
  }
  if len(shapes) != 1:
    kinds = ", ".join(sorted({type(t).__name__ for t in targets})) or "none"
    raise ConfigError(
      "Targets that run together must be of one kind and size.",
      received=f"{len(targets)} targets ({kinds}) of {len(shapes)} kinds",
      instead="logits alone, or differences alone; one call for each kind",
    )
  return batch, [rows for _, rows, _ in asked], [r for _, _, r in asked]


def _stacked(parts: Sequence[Any]) -> Any:
  """Equal trees as one, with an axis in front."""
  return jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)


def _unstacked(
  found: tuple[Float[Array, "targets batch"], Values],
) -> list[tuple[np.ndarray, Values]]:
  """One result for each target, on the host."""
  values, taps = jax.tree.map(np.asarray, found)
  return [
    (value, jax.tree.map(lambda leaf, i=i: leaf[i], taps))
    for i, value in enumerate(values)
  ]
