"""A target's value as a function of what is put in at some sites."""

from collections.abc import Mapping
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from penzai import pz

from gemma_scope.activations.tokens import Input, TokenBatch, to_tokens
from gemma_scope.attribution.objectives.protocol import (
  ResolvedTarget,
  Seen,
  Target,
  same_count,
)
from gemma_scope.attribution.rows import Rows, Values, run_rows, to_rows
from gemma_scope.model import gemma
from gemma_scope.model.language_model import LanguageModel
from gemma_scope.sites import Site
from gemma_scope.surgery.intervene import check_positions
from gemma_scope.surgery.select import stop_after, tap


def ask(
  lm: LanguageModel, given: Input, target: Target
) -> tuple[TokenBatch, Rows, ResolvedTarget]:
  """A user's prompts and target, as arrays that fit each other.

  Args:
    lm: The model.
    given: Text, texts, or token ids.
    target: What is explained.

  Raises:
    TextError: If the prompts or the target cannot be used together.
    SiteError: If the target reads a site that there is not.
  """
  batch = to_tokens(lm, given)
  check_positions(lm.model, batch.sequences)
  rows = to_rows(batch, target.position)
  resolved = target.resolve(lm)
  same_count(resolved.rows, rows.ids.shape[0])
  return batch, rows, resolved


def evaluate(
  model: gemma.Gemma,
  rows: Rows,
  target: ResolvedTarget,
  inputs: Mapping[Site, pz.nx.NamedArray],
) -> tuple[Float[Array, " batch"], Values]:
  """The target's value for each row, and what taps recorded.

  Args:
    model: A model with an `Offset` or `Replacement` at every site of `inputs`.
    rows: The prompts.
    target: What is explained.
    inputs: What is added or put at each site.
  """
  chosen, taps = run_rows(tap(model, target.reads), rows, inputs)
  seen = Seen(chosen, model.table.data_array, rows.columns, taps)
  return target.value(seen), taps


def read_sites(
  model: gemma.Gemma, rows: Rows, sites: tuple[Site, ...]
) -> Values:
  """The values of some sites on some prompts; no later layer runs.

  Args:
    model: A model without anything that needs an input.
    rows: The prompts.
    sites: The sites.
  """
  _, taps = run_rows(stop_after(tap(model, sites), sites), rows)
  return {site: taps[site] for site in sites}


@functools.partial(jax.jit, static_argnames="site")
def value_on(
  model: gemma.Gemma, rows: Rows, site: Site
) -> Float[Array, "batch ..."]:
  """The value of a site on some prompts, axes as in `sites`."""
  return read_sites(model, rows, (site,))[site].unwrap(*site.info.axes)


def zero_offsets(
  model: gemma.Gemma, rows: Rows, sites: tuple[Site, ...]
) -> Values:
  """An offset of zero for each site, in the site's dtype; see `read_sites`."""
  shapes = jax.eval_shape(lambda: read_sites(model, rows, sites))
  return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
