"""Means of activations over texts: for mean ablation, steering, norms.

    mean(site) = average over tokens of x        norm(site) = average of |x|
    direction  = mean over one set of texts - mean over another

BOS and padding are left out: BOS has norms of its own. Source of the direction:
Marks and Tegmark 2023, "The Geometry of Truth" (difference of means).
"""

from collections.abc import Iterable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from penzai import pz

from gemma_scope.activations.run import forward
from gemma_scope.activations.tokens import Input, TokenBatch, to_tokens
from gemma_scope.errors import TextError
from gemma_scope.model.language_model import LanguageModel
from gemma_scope.sites import Site, resolve
from gemma_scope.surgery.positions import BOS
from gemma_scope.surgery.select import stop_after, tap

ROWS_AT_ONCE = 8

Specs = Iterable[Site | str] | Site | str


def means(
  lm: LanguageModel, given: Input, sites: Specs
) -> dict[Site, pz.nx.NamedArray]:
  """The mean of each site over the tokens of some texts.

  Args:
    lm: The model.
    given: Texts or rows of token ids.
    sites: Sites with an axis `seq` and no `kv_seq`, such as "z[:]".

  Returns:
    Site -> float32 array with the site's axes but `batch` and `seq`.

  Raises:
    SiteError: If a site is unknown.
    TextError: If there is no token besides BOS.
  """
  totals: dict[Site, np.ndarray] = {}
  count = 0
  for values, weights in _batches(lm, given, sites):
    count += int(weights.sum())
    for site, value in values.items():
      total = np.einsum("bs,bs...->...", weights, value)
      totals[site] = totals.get(site, 0) + total
  inside = {site: site.info.axes[2:] for site in totals}
  return {
    site: pz.nx.wrap(jnp.asarray(total / count, jnp.float32), *inside[site])
    for site, total in totals.items()
  }


def mean_norms(
  lm: LanguageModel, given: Input, sites: Specs
) -> dict[Site, float]:
  """The mean Euclidean norm of each site over the tokens of some texts.

  All axes of a site but `batch` and `seq` count as one vector.
  """
  totals: dict[Site, float] = {}
  count = 0
  for values, weights in _batches(lm, given, sites):
    count += int(weights.sum())
    for site, value in values.items():
      norms = np.linalg.norm(value.reshape(*weights.shape, -1), axis=-1)
      totals[site] = totals.get(site, 0.0) + float((norms * weights).sum())
  return {site: total / count for site, total in totals.items()}


def difference_of_means(
  lm: LanguageModel, toward: Input, away: Input, sites: Specs
) -> dict[Site, pz.nx.NamedArray]:
  """The direction from one set of texts to another, at each site.

  Args:
    lm: The model.
    toward: Texts the direction leads to.
    away: Texts it leads away from.
    sites: As in `means`.
  """
  high, low = means(lm, toward, sites), means(lm, away, sites)
  return {site: high[site] - low[site] for site in high}


def _batches(
  lm: LanguageModel, given: Input, sites: Specs
) -> Iterator[tuple[dict[Site, np.ndarray], np.ndarray]]:
  """Values [batch, seq, ...] in float64, and 1 for tokens that count."""
  wanted = resolve(sites, lm.config.num_layers)
  batch = to_tokens(lm, given)
  counted = (batch.segment_ids != 0) & (batch.ids != BOS)
  if not counted.any():
    raise TextError(
      "There is no token to average over besides <bos>.",
      received=f"{len(batch.ids)} rows",
      instead="texts of at least one token",
    )
  model = stop_after(tap(lm.model, wanted), wanted)
  outer = _outer(wanted)
  for start in range(0, len(batch.ids), ROWS_AT_ONCE):
    rows = _rows(batch, start)
    columns = np.arange(rows.width)
    found = forward(model, rows.ids, rows.segment_ids, columns, outer)
    weights = (rows.segment_ids != 0) & (rows.ids != BOS)
    yield _plain(found, wanted), weights.astype(np.float64)


def _rows(batch: TokenBatch, start: int) -> TokenBatch:
  """Some rows, filled up with padding so that one program serves all."""
  ids, segments = (
    a[start : start + ROWS_AT_ONCE] for a in (batch.ids, batch.segment_ids)
  )
  if len(batch.ids) > ROWS_AT_ONCE:
    pad = ((0, ROWS_AT_ONCE - len(ids)), (0, 0))
    ids, segments = np.pad(ids, pad), np.pad(segments, pad)
  return TokenBatch(ids, segments, batch.exact).to_bucket()


def _plain(
  found: dict[Site, pz.nx.NamedArray], wanted: Sequence[Site]
) -> dict[Site, np.ndarray]:
  arrays = {s: found[s].unwrap(*s.info.axes) for s in wanted}
  return {
    s: np.asarray(jax.device_get(a), np.float64) for s, a in arrays.items()
  }


def _outer(wanted: Sequence[Site]) -> str:
  names = {site.base for site in wanted}
  return next((n for n in ("logits", "final_norm") if n in names), "")
