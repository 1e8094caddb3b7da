"""Labelled texts to features: one vector of a site for each text.

A position rule says which tokens stand for a text. All sites come from the same
forward passes.
"""

from collections.abc import Sequence

import jax
from jaxtyping import Bool, Float
import numpy as np
from penzai import pz

from gemma_scope.activations.run import capture
from gemma_scope.activations.tokens import Input, TokenBatch, to_tokens
from gemma_scope.errors import TextError
from gemma_scope.model.language_model import LanguageModel
from gemma_scope.sites import Site

ROWS_AT_ONCE = 32  # texts of one forward pass

Position = int | str | Sequence[int]


def labelled_features(
  lm: LanguageModel,
  given: tuple[Input, Input],
  sites: tuple[Site, ...],
  position: Position,
) -> tuple[
  dict[Site, Float[np.ndarray, "texts ..."]], Bool[np.ndarray, " texts"]
]:
  """Features of positive and negative texts.

  Args:
    lm: The model.
    given: Positive and negative texts or token ids.
    sites: Sites with a value for each token.
    position: A column (negative counts from a text's last token), several to
      average, or "mean" for all but the first.

  Returns:
    Site -> features in float64, and which texts are positive.

  Raises:
    TextError: If a text has no token at the position.
  """
  batches = [to_tokens(lm, part) for part in given]
  labels = np.repeat([True, False], [len(b.ids) for b in batches])
  batch = _together(batches)
  weights = token_weights(batch, position)
  count = min(ROWS_AT_ONCE, len(labels))
  found: dict[Site, list[np.ndarray]] = {site: [] for site in sites}
  for first in range(0, len(labels), count):
    # The last rows are run again where there are not enough: one program.
    rows = np.minimum(np.arange(first, first + count), len(labels) - 1)
    some = TokenBatch(batch.ids[rows], batch.segment_ids[rows], exact=True)
    acts = capture(lm, some, sites)
    for site in sites:
      found[site].append(_pooled(acts[site], site, weights[rows]))
  features = {s: np.concatenate(x)[: len(labels)] for s, x in found.items()}
  return features, labels


def token_weights(
  batch: TokenBatch, position: Position
) -> Float[np.ndarray, "texts seq"]:
  """The share of each token in what stands for its text.

  Raises:
    TextError: If a text has no such token.
  """
  lengths, column = batch.lengths, np.arange(batch.width)
  if isinstance(position, str):  # "mean"
    wanted = (column >= 1) & (column < lengths[:, None])
    wanted[lengths == 1, 0] = True
    return wanted / wanted.sum(axis=1, keepdims=True)
  columns = np.atleast_1d(np.asarray(position))
  columns = np.where(columns < 0, lengths[:, None] + columns, columns[None])
  if (columns < 0).any() or (columns >= lengths[:, None]).any():
    raise TextError(
      "A text has no token at the probe's position.",
      received=f"position {position}, the shortest text {lengths.min()} tokens",
      instead='-1 for the last token, or "mean"',
    )
  weights = np.zeros((len(lengths), batch.width))
  np.add.at(weights, (np.arange(len(lengths))[:, None], columns), 1.0)
  return weights / weights.sum(axis=1, keepdims=True)


def _together(batches: Sequence[TokenBatch]) -> TokenBatch:
  """Rows of several batches in one, padded as text is."""
  width = max(batch.width for batch in batches)

  def widened(rows: np.ndarray) -> np.ndarray:
    return np.pad(rows, ((0, 0), (0, width - rows.shape[1])))

  ids = np.concatenate([widened(b.ids) for b in batches])
  segments = np.concatenate([widened(b.segment_ids) for b in batches])
  return TokenBatch(ids, segments, exact=False).to_bucket()


def _pooled(
  value: pz.nx.NamedArray, site: Site, weights: Float[np.ndarray, "rows seq"]
) -> Float[np.ndarray, "rows ..."]:
  """The weighted sum over tokens."""
  data = np.asarray(jax.device_get(value.unwrap(*site.info.axes)), np.float64)
  return np.einsum("bs,bs...->b...", weights, data)
