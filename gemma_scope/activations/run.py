"""One forward pass that returns the activations asked for.

The pass is jitted, runs no layer past the last site, and computes final norm
and logits only where they are asked for. `capture` is for prompts and batches
that fit in memory.
"""

from collections.abc import Iterable
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from penzai import pz

from gemma_scope import axes
from gemma_scope.activations.by_site import BySite
from gemma_scope.activations.tokens import Input, TokenBatch, to_tokens
from gemma_scope.display import table_html
from gemma_scope.errors import SiteError
from gemma_scope.model import gemma
from gemma_scope.model.language_model import LanguageModel
from gemma_scope.sites import Site, resolve
from gemma_scope.surgery.intervene import check_positions
from gemma_scope.surgery.select import stop_after, tap


@dataclasses.dataclass(frozen=True, repr=False)
class Capture(BySite):
  """Activations by site; keys print as `resid_post[12]`.

  Every array has the axes `batch` and `seq`, also for a single prompt; columns
  past a shorter row's end hold values of padding (see `tokens.segment_ids`).

  Attributes:
    arrays: Site -> array.
    tokens: The rows that were run.
  """

  tokens: TokenBatch

  def stacked(self, name: str) -> pz.nx.NamedArray:
    """All captured layers of a site along an axis `layer` in front."""
    layers = [v for s, v in self.arrays.items() if s.name == name]
    if not layers:
      raise SiteError(
        "This site was not captured.",
        received=name,
        instead=f"one of {', '.join(sorted({s.name for s in self.arrays}))}",
      )
    names = tuple(layers[0].named_axes)
    data = jnp.stack([v.unwrap(*names) for v in layers])
    return pz.nx.wrap(data, axes.LAYER, *names)

  def __repr__(self) -> str:
    sites = ", ".join(map(str, self.arrays))
    return f"Capture({len(self)} sites: {sites:.200})"

  def _repr_html_(self) -> str:
    rows = [
      (str(site), str(dict(v.named_axes)), str(v.dtype), _norm(v))
      for site, v in self.arrays.items()
    ]
    header = ["site", "axes", "dtype", "root mean square"]
    return table_html(header, rows, title="Captured activations")


def capture(
  lm: LanguageModel,
  given: Input,
  sites: Iterable[Site | str],
  *,
  segment_ids: np.ndarray | None = None,
  logits_at: int | slice | None = None,
) -> Capture:
  """Runs the model once and returns the activations at `sites`.

  Args:
    lm: The model; `lm.replace(edited)` captures from an edited one.
    given: Text, texts, or token ids (see `to_tokens`).
    sites: Addresses such as "resid_post[:]", "pattern[5]", "embed".
    segment_ids: For packed rows of ids, the sequence of each token.
    logits_at: Columns at which `final_norm` and `logits` are computed, if
      these sites are asked for; all by default, which for logits is 1 MB a
      token.

  Returns:
    Site -> array in the dtype of the model (patterns and logits float32).

  Raises:
    SiteError: If a site is unknown or its layer out of range.
    TextError: If the input cannot be run.
  """
  wanted = resolve(sites, lm.config.num_layers)
  if not wanted:
    raise SiteError(
      "There is no site to capture.",
      received=f"sites={sites!r}",
      instead='for example sites=["resid_post[:]"]',
    )
  batch = to_tokens(lm, given, segment_ids)
  check_positions(lm.model, batch.sequences)
  run = batch.to_bucket()
  tapped = stop_after(tap(lm.model, wanted), wanted)
  # By default added padding is computed too: one program for many widths.
  columns = np.arange(run.width)
  if logits_at is not None:
    columns = columns_at(logits_at, batch.width)
  names = {site.base for site in wanted if site.layer is None}
  values = forward(tapped, run.ids, run.segment_ids, columns, _outer(names))
  return Capture(
    {site: _trim(values[site], batch.width) for site in wanted}, batch
  )


@functools.partial(jax.jit, static_argnames=("outer",))
def forward(
  model: gemma.Gemma,
  ids: jax.Array,
  segment_ids: jax.Array,
  columns: jax.Array,
  outer: str = "",
) -> dict[Site, pz.nx.NamedArray]:
  """What the taps of `model` record in one pass.

  Args:
    model: A tapped model.
    ids: Token ids, [batch, seq].
    segment_ids: The sequence of each token, [batch, seq].
    columns: Columns for the final norm and logits, [columns].
    outer: "" runs the layers only, "final_norm" and "logits" go that far.
  """
  residual, taps = gemma.run(model, ids, segment_ids)
  if not outer:
    return taps
  chosen = jnp.take(residual.unwrap(*_STREAM), columns, axis=1)
  chosen = pz.nx.wrap(chosen, *_STREAM)
  there = gemma.place(model, ids, segment_ids).take(columns)
  normed, seen = gemma.apply_final_norm(model, chosen, there)
  taps |= seen
  if outer == "logits":
    taps |= gemma.unembed(model, normed, there)[1]
  return taps


_STREAM = (axes.BATCH, axes.SEQ, axes.EMBEDDING)


def _outer(names: set[str]) -> str:
  for name in ("logits", "final_norm"):
    if name in names:
      return name
  return ""


def columns_at(at: int | slice | None, width: int) -> np.ndarray:
  """The columns that an index or slice means; all for None.

  Raises:
    SiteError: If there is no such column.
  """
  chosen = np.zeros(0, int)
  if at is None or isinstance(at, slice):
    chosen = np.arange(width)[at or slice(None)]
  elif isinstance(at, int | np.integer) and not isinstance(at, bool):
    chosen = np.asarray([at] if -width <= at < width else [], int) % width
  if not chosen.size:
    raise SiteError(
      "There is no token at this position.",
      received=f"position {at}",
      instead=f"a position from {-width} to {width - 1}, or a slice of them",
    )
  return chosen


def _trim(value: pz.nx.NamedArray, width: int) -> pz.nx.NamedArray:
  """Drops the columns that were added to reuse a compiled program."""
  names = tuple(value.named_axes)
  data = value.unwrap(*names)
  for i, name in enumerate(names):
    if name in (axes.SEQ, axes.KV_SEQ) and data.shape[i] > width:
      data = jax.lax.slice_in_dim(data, 0, width, axis=i)
  return pz.nx.wrap(data, *names)


def _norm(value: pz.nx.NamedArray) -> str:
  data = np.asarray(value.unwrap(*value.named_axes), np.float32)
  return f"{np.sqrt(np.mean(data * data)):.4g}"
