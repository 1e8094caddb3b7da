"""Where an integration path starts.

At `embed`: "mean", the mean embedding of the prompt's own tokens (the default),
"pad", the embedding of the padding token, or "zero". The first token, BOS, is
kept as it is in "mean" and "pad": without it the model computes something else
altogether. "zero" is far from every text, and from there the path does not
converge in any affordable number of steps. Other sites start from "zero", or
from an array.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gemma_scope import axes
from gemma_scope.attribution.rows import Rows
from gemma_scope.errors import ConfigError
from gemma_scope.model.config import GemmaConfig
from gemma_scope.model.gemma import Gemma
from gemma_scope.sites import Site

NAMES = ("mean", "pad", "zero")


def baseline_at(
  site: Site, wanted: str | Any | None, model: Gemma, rows: Rows
) -> jax.Array:
  """The array where integration at a site starts.

  Args:
    site: The site.
    wanted: A name of `NAMES`, an array that broadcasts to the site's value, or
      None for the default.
    model: The model.
    rows: The prompts.

  Raises:
    ConfigError: If the site has no such baseline.
  """
  if wanted is None:
    wanted = "mean" if site.name == "embed" else "zero"
  if not isinstance(wanted, str):
    return _spread(jnp.asarray(wanted), site, model.config, rows)
  if wanted == "zero":
    return jnp.zeros((1,) * len(site.info.axes))
  if wanted in NAMES and site.name == "embed":
    return _instead_of_tokens(model, rows, wanted == "mean")
  raise ConfigError(
    "There is no such baseline for this site.",
    received=f"baseline={wanted!r} at {site}",
    instead='"zero" or an array; at "embed" also "mean" and "pad"',
  )


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
  model: Gemma, rows: Rows, mean: bool
) -> Float[Array, "batch seq embedding"]:
  """Every token's embedding replaced by the mean or by padding's."""
  table = model.table.data_array
  scale = jnp.asarray(model.config.d_model**0.5, table.dtype)
  vectors = jnp.take(table, rows.ids, axis=0) * scale
  changed = (rows.segment_ids != 0).at[:, 0].set(False)[:, :, None]
  total = jnp.sum(vectors * changed, axis=1, keepdims=True)
  count = jnp.maximum(changed.sum(axis=1, keepdims=True), 1)
  average = (total / count).astype(table.dtype)
  other = jnp.where(mean, average, (table[0] * scale)[None, None])
  return jnp.where(changed, other, vectors)
