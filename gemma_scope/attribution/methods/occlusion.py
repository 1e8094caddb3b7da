"""Occlusion: how much the target falls where a window of tokens is hidden.

    D(w) = f(x) - f(x with the baseline at the tokens of window w)
    S(token) = mean over the windows that cover it of D(w)

Nothing is differentiated: the scores are measured. A token's score is shared
equally by its elements. Windows of one token are ablation token by token; they
sum to f(x) - f(b) only where tokens do not interact, so nothing is promised.
Source: Zeiler and Fergus 2014, "Visualizing and Understanding Convolutional
Networks", section 4.2.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float
import numpy as np
from penzai import pz

from gemma_scope import axes
from gemma_scope.activations.tokens import TokenBatch
from gemma_scope.attribution import gradients
from gemma_scope.attribution.baselines import baseline_at, resolved_baseline
from gemma_scope.attribution.evaluate import evaluate
from gemma_scope.attribution.methods.protocol import (
  Answer,
  Method,
  Options,
  Question,
  nothing_promised,
)
from gemma_scope.attribution.objectives import ResolvedTarget
from gemma_scope.attribution.rows import Rows
from gemma_scope.errors import ConfigError
from gemma_scope.model.gemma import Gemma
from gemma_scope.model.language_model import LanguageModel
from gemma_scope.sites import Site
from gemma_scope.surgery.select import replace


@dataclasses.dataclass(frozen=True)
class OcclusionOptions(Options):
  """Options of occlusion.

  Attributes:
    window: Tokens hidden together.
    stride: Tokens from one window to the next, at most `window`.
    baseline: What is put there, as in `GradientOptions`.
  """

  window: int = 1
  stride: int = 1
  baseline: str | Any | None = None

  def resolved(
    self, lm: LanguageModel, batch: TokenBatch
  ) -> "OcclusionOptions":
    """With token ids for a baseline of tokens.

    Raises:
      ConfigError: If the windows do not cover every token.
    """
    if not 1 <= self.stride <= self.window:
      raise ConfigError(
        "Windows of occlusion must cover every token.",
        received=f"window={self.window}, stride={self.stride}",
        instead="a stride from 1 to the window's length",
      )
    baseline = resolved_baseline(self.baseline, lm, batch)
    return dataclasses.replace(self, baseline=baseline)


def _occlusion(question: Question) -> Answer:
  q, o = question, question.options
  masks = windows(np.asarray(q.rows.segment_ids), o.window, o.stride)
  value, values = np.zeros(0), {}
  for site in q.sites:
    baseline = baseline_at(site, o.baseline, q.model, q.rows)
    top, _, start, difference = gradients.path_ends(
      q.model, q.rows, q.target, baseline, site
    )
    value = np.asarray(top)
    hidden = _hidden(q, start, difference, masks, site)
    falls = (value[None] - hidden)[:, :, None] * masks
    scores = falls.sum(axis=0) / np.maximum(masks.sum(axis=0), 1)
    values[site] = shared(scores, start, q.rows)
  return Answer(value, values, nothing_promised(value, q.sites))


def windows(
  segment_ids: np.ndarray, window: int, stride: int
) -> Bool[np.ndarray, "windows batch seq"]:
  """Which tokens each window hides in each prompt; false where it has none.

  The last window of a prompt may reach past its end and is cut there.
  """
  lengths = (segment_ids != 0).sum(axis=1)
  counts = -(-np.maximum(lengths - window, 0) // stride) + 1
  starts = stride * np.arange(counts.max())[:, None, None]
  column = np.arange(segment_ids.shape[1])
  covered = (column >= starts) & (column < starts + window)
  there = np.arange(counts.max())[:, None, None] < counts[None, :, None]
  return covered & there & (segment_ids != 0)[None]


def _hidden(
  question: Question,
  start: pz.nx.NamedArray,
  difference: pz.nx.NamedArray,
  masks: Bool[np.ndarray, "windows batch seq"],
  site: Site,
) -> np.ndarray:
  """[windows, batch] the target under every window, as many at once as fit."""
  q, total = question, len(masks)
  count = gradients.steps_at_once(q.rows, total)
  masks = np.pad(masks, ((0, -total % count), (0, 0), (0, 0)))
  found = [
    target_hidden(
      q.model, q.rows, q.target, start, difference, masks[i : i + count], site
    )
    for i in range(0, len(masks), count)
  ]
  return np.concatenate(found)[:total]


@functools.partial(jax.jit, static_argnames="site")
def target_hidden(
  model: Gemma,
  rows: Rows,
  target: ResolvedTarget,
  start: pz.nx.NamedArray,
  difference: pz.nx.NamedArray,
  masks: Bool[Array, "windows batch seq"],
  site: Site,
) -> Float[Array, "windows batch"]:
  """The target where some tokens of a site have the value `start`."""
  names = site.info.axes
  way = difference.unwrap(*names)
  shape = [1] * way.ndim
  shape[names.index(axes.SEQ)] = masks.shape[2]
  hide = masks.reshape(*masks.shape[:2], *shape[1:])
  points = start.unwrap(*names)[None] + jnp.where(hide, 0, way[None])
  many, targets = gradients.repeated(rows, target, masks.shape[0])
  flat = pz.nx.wrap(points.reshape(-1, *way.shape[1:]), *names)
  found, _ = evaluate(replace(model, [site]), many, targets, {site: flat})
  return found.reshape(masks.shape[:2])


def shared(
  scores: np.ndarray, like: pz.nx.NamedArray, rows: Rows
) -> pz.nx.NamedArray:
  """Scores [batch, seq] spread equally over the elements of each token."""
  names = tuple(map(str, like.named_axes))
  sizes = dict(like.named_axes)
  real = np.asarray(rows.segment_ids) != 0
  each = np.ones([sizes[n] for n in names], np.float32)
  for i, name in enumerate(names):
    if name in (axes.SEQ, axes.KV_SEQ):
      each *= _along(real, names, i)
  others = tuple(
    i for i, n in enumerate(names) if n not in (axes.BATCH, axes.SEQ)
  )
  count = each.sum(axis=others, keepdims=True)
  score = _along(scores, names, names.index(axes.SEQ))
  return pz.nx.wrap(jnp.asarray(score * each / np.maximum(count, 1)), *names)


def _along(values: np.ndarray, names: tuple[str, ...], axis: int) -> np.ndarray:
  """[batch, seq] reshaped to stand along the batch and another axis."""
  shape = [1] * len(names)
  shape[names.index(axes.BATCH)], shape[axis] = values.shape
  return values.reshape(shape)


OCCLUSION = Method(_occlusion, OcclusionOptions)
