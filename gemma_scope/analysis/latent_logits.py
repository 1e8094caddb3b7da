"""Which tokens the latents of a dictionary favour, directly.

    logits(j) = W_E ((1 + gain) * w_dec[j])

The row that a latent writes, read through the final norm's gain and the
unembedding: what one unit of activation adds to every logit, times the final
norm's 1 / rms, which is left out. Source: nostalgebraist 2020 (logit lens),
Bricken et al. 2023, "Towards Monosemanticity" (of latents). Effects that go
through later layers are not counted; those of early latents mostly do.
"""

from collections.abc import Sequence
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

from gemma_scope import axes
from gemma_scope.analysis.lens import STREAM
from gemma_scope.dictionaries.protocol import Dictionary
from gemma_scope.errors import SiteError
from gemma_scope.model.gemma import Gemma, token_logits
from gemma_scope.model.language_model import LanguageModel
from gemma_scope.model.norms import inverse_rms
from gemma_scope.model.site_layer import without_scopes

ROWS_AT_ONCE = 64  # their logits take 67 MB, see `lens`
COUNT = 8


def latent_logits(
  lm: LanguageModel,
  dictionary: Dictionary,
  *,
  count: int = COUNT,
  indices: Sequence[int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
  """The tokens that each latent favours and disfavours most.

  Args:
    lm: The model.
    dictionary: One that writes into the residual stream; of several layers the
      last one's rows are read.
    count: How many tokens at either end.
    indices: Which latents; all by default.

  Returns:
    Token ids [latents, 2, count] int32 and their logits, float32, by unit of
    activation: favoured (largest first), disfavoured (smallest first).

  Raises:
    SiteError: Its rows are no vectors of the residual stream.
  """
  rows = decoder_rows(dictionary)
  if indices is not None:
    rows = rows[np.asarray(indices)]
  latents = len(rows)
  padded = jnp.pad(rows, ((0, -latents % ROWS_AT_ONCE), (0, 0)))
  parts = [
    _ends(lm.model, padded[i : i + ROWS_AT_ONCE], count)
    for i in range(0, len(padded), ROWS_AT_ONCE)
  ]
  tokens, logits = (
    np.concatenate([np.asarray(p) for p in part])[:latents]
    for part in zip(*parts)
  )
  return tokens.astype(np.int32), logits.astype(np.float32)


def decoder_rows(dictionary: Any) -> Float[Array, "latents embedding"]:
  """What each latent adds to the residual stream, float32.

  Args:
    dictionary: An SAE, transcoder or crosscoder.

  Raises:
    SiteError: Its rows are no vectors of the residual stream.
  """
  site = dictionary.sites_out[-1]
  w_dec = getattr(dictionary, "w_dec", None)
  if site.name not in STREAM or w_dec is None:
    raise SiteError(
      "The rows of this dictionary are not written to the residual stream.",
      received=str(getattr(dictionary, "about", dictionary)),
      instead="an SAE, transcoder or crosscoder that rebuilds "
      f"{', '.join(STREAM)}",
    )
  last = w_dec[-1] if isinstance(w_dec, tuple) else w_dec
  rows = last.unwrap(axes.LATENTS, axes.OUTPUT)
  return jnp.asarray(rows, jnp.float32)


def final_gain(model: Gemma) -> Float[Array, " embedding"]:
  """What the final norm multiplies each direction by, 1 / rms left out."""
  scale = without_scopes(model.final_norm).scale.data_array
  return 1.0 + scale.astype(jnp.float32)


def target_direction(
  model: Gemma,
  stream: Float[Array, " embedding"],
  target_id: int,
  against_id: int | None = None,
) -> Float[Array, " embedding"]:
  """Along which a logit, or a difference, reads the last residual stream.

  What a latent adds to it is activation x (decoder row . direction), with the
  final norm's scale held.

  Args:
    model: The model.
    stream: The last residual stream at the predicting token.
    target_id: The token.
    against_id: The one it is compared with, if any.
  """
  table = model.table.data_array
  rows = table[target_id].astype(jnp.float32)
  if against_id is not None:
    rows = rows - table[against_id].astype(jnp.float32)
  eps = without_scopes(model.final_norm).eps
  inverse = inverse_rms(stream.astype(jnp.float32)[None, :], eps)[0]
  return rows * final_gain(model) * inverse


@functools.partial(jax.jit, static_argnames="count")
def _ends(
  model: Gemma, rows: Float[Array, "rows embedding"], count: int
) -> tuple[Int[Array, "rows 2 count"], Float[Array, "rows 2 count"]]:
  """The largest and the smallest logits of some rows."""
  table = model.table.data_array
  seen = rows * final_gain(model)[None, :]
  logits = token_logits(seen.astype(table.dtype), table)
  high, favoured = jax.lax.top_k(logits, count)
  low, disfavoured = jax.lax.top_k(-logits, count)
  return jnp.stack([favoured, disfavoured], 1), jnp.stack([high, -low], 1)
