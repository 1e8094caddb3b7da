"""What a value is compared with: where an integration path starts.

"mean" is the mean of the site over the prompt's own tokens (the default at
`embed`), "pad" the embedding of the padding token, "zero" the default at other
sites. The first token, BOS, is kept as it is in "mean" and "pad": without it
the model computes something else altogether. "zero" is far from every text, and
from there the path does not converge in any affordable number of steps. An
array is used as it is; `OtherPrompt` and `ReplacedTokens` stand for the value
that the site has on other tokens.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

from gemma_scope import axes
from gemma_scope.activations.tokens import Input, TokenBatch, to_tokens
from gemma_scope.attribution.evaluate import value_on
from gemma_scope.attribution.rows import Rows
from gemma_scope.errors import ConfigError, TextError
from gemma_scope.model.config import GemmaConfig
from gemma_scope.model.gemma import Gemma
from gemma_scope.model.language_model import LanguageModel
from gemma_scope.sites import Site

NAMES = ("mean", "pad", "zero")


@dataclasses.dataclass(frozen=True)
class OtherPrompt:
  """Another prompt, token for token as long as the one explained.

  Attributes:
    given: Text or token ids for all prompts, or one for each.
  """

  given: Input


@dataclasses.dataclass(frozen=True)
class ReplacedTokens:
  """The prompt with one token in the place of every other.

  BOS, turn markers and other control tokens stay.

  Attributes:
    token: The token that is put there, text or id.
  """

  token: str | int


@dataclasses.dataclass(frozen=True, eq=False)
class OtherTokens:
  """Resolved: ids in the place of the prompts'.

  Attributes:
    ids: One row for all prompts, or one for each.
  """

  ids: Int[np.ndarray, "batch seq"]


def resolved_baseline(wanted: Any, lm: LanguageModel, batch: TokenBatch) -> Any:
  """A baseline with token ids for its texts.

  Args:
    wanted: What `baseline_at` takes, an `OtherPrompt` or `ReplacedTokens`.
    lm: The model that is explained.
    batch: The prompts.

  Raises:
    TextError: If another prompt has another number of tokens.
  """
  if isinstance(wanted, ReplacedTokens):
    token = lm.tokenizer.token_id(wanted.token)
    return OtherTokens(np.where(replaceable(lm, batch), token, batch.ids))
  if not isinstance(wanted, OtherPrompt):
    return wanted
  other = to_tokens(lm, wanted.given)
  lengths = (
    np.broadcast_to(other.lengths, batch.lengths.shape)
    if (len(other.lengths) in (1, len(batch.lengths)))
    else None
  )
  if lengths is None or (lengths != batch.lengths).any():
    raise TextError(
      "A baseline prompt must have as many tokens as the prompt explained.",
      received=f"{other.lengths.tolist()} tokens for prompts of "
      f"{batch.lengths.tolist()}",
      instead="a prompt that differs token for token, or ReplacedTokens",
    )
  return OtherTokens(other.ids)


def replaceable(lm: LanguageModel, batch: TokenBatch) -> np.ndarray:
  """[batch, seq] whether a token is one of the text's own, no control token."""
  controls = list(lm.tokenizer.control_ids.values())
  return (batch.segment_ids != 0) & ~np.isin(batch.ids, controls)


def baseline_at(
  site: Site, wanted: str | Any | None, model: Gemma, rows: Rows
) -> jax.Array:
  """The array where integration at a site starts.

  Args:
    site: The site.
    wanted: A name of `NAMES`, an array that broadcasts to the site's value,
      `OtherTokens`, or None for the default.
    model: The model.
    rows: The prompts.

  Raises:
    ConfigError: If the site has no such baseline.
  """
  if wanted is None:
    wanted = "mean" if site.name == "embed" else "zero"
  if isinstance(wanted, OtherTokens):
    return value_on(model, with_tokens(rows, wanted.ids), site)
  if not isinstance(wanted, str):
    return _spread(jnp.asarray(wanted), site, model.config, rows)
  if wanted == "zero":
    return jnp.zeros((1,) * len(site.info.axes))
  if wanted == "mean" and has_mean(site):
    value = value_on(model, rows, site)
    return _instead_of_tokens(value, rows, None)
  if wanted == "pad" and site.name == "embed":
    pad = with_tokens(rows, np.zeros(rows.ids.shape, np.int32))
    value = value_on(model, rows, site)
    return _instead_of_tokens(value, rows, value_on(model, pad, site))
  raise ConfigError(
    "There is no such baseline for this site.",
    received=f"baseline={wanted!r} at {site}",
    instead='"zero", an array, OtherPrompt or ReplacedTokens; "mean" at sites '
    'with one value for each token, "pad" at "embed"',
  )


def has_mean(site: Site) -> bool:
  """Whether a site has a mean over tokens: no pattern has."""
  return axes.KV_SEQ not in site.info.axes


def with_tokens(rows: Rows, ids: Int[np.ndarray, "batch seq"]) -> Rows:
  """Prompts with other tokens at the same places."""
  missing = rows.ids.shape[1] - ids.shape[1]
  ids = np.pad(ids, ((0, 0), (0, missing)))
  ids = np.where(np.asarray(rows.segment_ids) != 0, ids, 0)
  return dataclasses.replace(rows, ids=jnp.asarray(ids, jnp.int32))


def _spread(
  given: jax.Array, site: Site, config: GemmaConfig, rows: Rows
) -> jax.Array:
  """An array with the site's axes, padded behind the prompts as they are."""
  width = rows.ids.shape[1]
  longest = int((rows.segment_ids != 0).sum(axis=1).max())
  sizes = {
    axes.BATCH: rows.ids.shape[0],
    axes.SEQ: width,
    axes.KV_SEQ: width,
    axes.EMBEDDING: config.d_model,
    axes.HEADS: config.num_heads,
    axes.KV_HEADS: config.num_kv_heads,
    axes.PROJECTION: config.head_dim,
    axes.NEURONS: config.d_ff,
  }
  names = site.info.axes
  missing = len(names) - given.ndim
  spread = given.reshape((1,) * missing + given.shape)
  extra = [
    width - longest if n in (axes.SEQ, axes.KV_SEQ) and size == longest else 0
    for n, size in zip(names, spread.shape)
  ]
  fits = [
    e + size in (1, sizes[n]) for e, n, size in zip(extra, names, spread.shape)
  ]
  if missing < 0 or not all(fits):
    tokens = {axes.SEQ: longest, axes.KV_SEQ: longest}
    shape = ", ".join(f"{n} {tokens.get(n, sizes[n])}" for n in names)
    raise ConfigError(
      "This array does not broadcast to the site.",
      received=f"a baseline of shape {given.shape} at {site}",
      instead=f"axes {shape}; any of them may be 1",
    )
  return jnp.pad(spread, [(0, e) for e in extra])


@jax.jit
def _instead_of_tokens(
  value: Float[Array, "batch seq ..."],
  rows: Rows,
  other: Float[Array, "batch seq ..."] | None,
) -> Float[Array, "batch seq ..."]:
  """Other values for every token but the first; by default their mean."""
  changed = (rows.segment_ids != 0).at[:, 0].set(False)
  changed = changed.reshape(*changed.shape, *(1,) * (value.ndim - 2))
  if other is None:
    total = jnp.sum(value * changed, axis=1, keepdims=True)
    count = jnp.maximum(changed.sum(axis=1, keepdims=True), 1)
    other = (total / count).astype(value.dtype)
  return jnp.where(changed, other, value)
