"""Background sets: what the baselines of expected gradients are drawn from.

Tokens of other texts, the prompt's own in random orders, or values of a site.
A text's site values are those of a run of that text at the prompt's length.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np
from penzai import pz

from gemma_scope.activations.tokens import TokenBatch, to_tokens
from gemma_scope.attribution import gradients
from gemma_scope.attribution.baselines import (
  baseline_at,
  replaceable,
  with_tokens,
)
from gemma_scope.attribution.evaluate import evaluate, value_on
from gemma_scope.attribution.objectives import ResolvedTarget
from gemma_scope.attribution.rows import Rows
from gemma_scope.errors import ConfigError, TextError
from gemma_scope.model.gemma import Gemma
from gemma_scope.model.language_model import LanguageModel
from gemma_scope.sites import Site
from gemma_scope.surgery.select import replace

SHUFFLED = "shuffled"


@dataclasses.dataclass(frozen=True, eq=False)
class Background:
  """A background set.

  Attributes:
    ids: Token ids; the second axis is one where all prompts share them. None
      for values.
    values: Values of the site, one a row. None for tokens.
  """

  ids: Int[np.ndarray, "background batch seq"] | None = None
  values: np.ndarray | None = None

  @property
  def count(self) -> int:
    """How many baselines there are."""
    members = self.values if self.ids is None else self.ids
    assert members is not None
    return len(members)


def resolved_background(
  given: Any, lm: LanguageModel, batch: TokenBatch, draws: tuple[int, int]
) -> Background:
  """A background set as arrays.

  Args:
    given: "shuffled", texts, rows of token ids, or an array of values.
    lm: The model that is explained.
    batch: The prompts.
    draws: How many random orders to make, and their seed.

  Raises:
    ConfigError: If there is no such background.
    TextError: If a text is shorter than a prompt.
  """
  if isinstance(given, str):
    if given == SHUFFLED:
      return Background(ids=_shuffled(lm, batch, *draws))
    raise ConfigError(
      "There is no such background.",
      received=f"background={given!r}",
      instead='"shuffled", a list of texts, rows of ids, or an array of values',
    )
  if isinstance(given, np.ndarray | jax.Array) and _is_real(given.dtype):
    return Background(values=np.asarray(given))
  tokens, width = to_tokens(lm, given), int(batch.lengths.max())
  if tokens.lengths.min() < width:
    short = int(tokens.lengths.argmin())
    raise TextError(
      "A background text must be at least as long as the prompt.",
      received=f"{tokens.lengths[short]} tokens for a prompt of {width}",
      instead="longer texts, of which the first tokens are used",
    )
  return Background(ids=tokens.ids[:, None, :width])


def _is_real(dtype: Any) -> bool:
  return bool(jnp.issubdtype(dtype, jnp.floating))


def _shuffled(
  lm: LanguageModel, batch: TokenBatch, count: int, seed: int
) -> Int[np.ndarray, "background batch seq"]:
  """Each prompt's own tokens in random orders."""
  movable = replaceable(lm, batch)
  ids = np.repeat(batch.ids[None], count, axis=0)
  for order in range(count):
    for row, free in enumerate(movable):
      places = np.flatnonzero(free)
      # The order depends on the prompt's length alone, not on its batch.
      rng = np.random.default_rng([seed, order])
      ids[order, row, places] = batch.ids[row, rng.permutation(places)]
  return ids


def background_values(
  model: Gemma,
  rows: Rows,
  target: ResolvedTarget,
  background: Background,
  site: Site,
) -> tuple[
  Float[Array, "background batch ..."], Float[Array, "background batch"]
]:
  """Each baseline's value of a site, and the target there.

  Raises:
    ConfigError: If values do not have the shape of the site.
  """
  many = gradients.steps_at_once(rows, background.count)
  padded = -(-background.count // many) * many
  values, ends = [], []
  for first in range(0, padded, many):
    index = np.minimum(np.arange(first, first + many), background.count - 1)
    some = _values(model, rows, background, index, site)
    values.append(some)
    ends.append(target_at(model, rows, target, some, site))
  kept = slice(background.count)
  return jnp.concatenate(values)[kept], jnp.concatenate(ends)[kept]


def _values(
  model: Gemma,
  rows: Rows,
  background: Background,
  index: np.ndarray,
  site: Site,
) -> Float[Array, "background batch ..."]:
  """The values of some baselines for every prompt."""
  batch = rows.ids.shape[0]
  every = rows.take(jnp.tile(jnp.arange(batch), len(index)))
  if background.ids is not None:
    ids = background.ids[index]
    ids = np.broadcast_to(ids, (len(index), batch, ids.shape[2]))
    run = with_tokens(every, ids.reshape(-1, ids.shape[2]))
    found = value_on(model, run, site)
  else:
    assert background.values is not None
    given = background.values[index]
    missing = max(0, len(site.info.axes) - given.ndim)
    given = given.reshape(len(given), *(1,) * missing, *given.shape[1:])
    given = np.repeat(given, batch, axis=0)
    found = baseline_at(site, given, model, every)
  shape = value_shape(model, rows, site)
  return jnp.broadcast_to(
    found.reshape(len(index), batch, *found.shape[1:]), (len(index), *shape)
  )


def value_shape(model: Gemma, rows: Rows, site: Site) -> tuple[int, ...]:
  """The shape of a site's value on some prompts."""
  return jax.eval_shape(lambda: value_on(model, rows, site)).shape


@functools.partial(jax.jit, static_argnames="site")
def target_at(
  model: Gemma,
  rows: Rows,
  target: ResolvedTarget,
  values: Float[Array, "points batch ..."],
  site: Site,
) -> Float[Array, "points batch"]:
  """The target of each prompt where a site has some values."""
  many, targets = gradients.repeated(rows, target, values.shape[0])
  flat = values.reshape(-1, *values.shape[2:])
  inputs = {site: pz.nx.wrap(flat, *site.info.axes)}
  found, _ = evaluate(replace(model, [site]), many, targets, inputs)
  return found.reshape(values.shape[:2])
