"""DeepLIFT at a site: the rescale rule between the prompt and a baseline.

    R = (x - b) * m,   sum R = f(x) - f(b)

m are the slopes of the rescale rule (see `rescale` and `deeplift`), through
attention and norms as well. The change of what is upstream of the site has no
part in it: b takes the site's place. A target that is not linear in what it
reads keeps its derivative at the prompt, and promises no sum.
"""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
from penzai import pz

from gemma_scope.activations.tokens import TokenBatch
from gemma_scope.attribution import gradients
from gemma_scope.attribution.baselines import (
  baseline_at,
  has_mean,
  resolved_baseline,
)
from gemma_scope.attribution.deeplift import deep_lift
from gemma_scope.attribution.evaluate import evaluate
from gemma_scope.attribution.methods.protocol import (
  Answer,
  Method,
  Options,
  Question,
)
from gemma_scope.attribution.objectives import ResolvedTarget
from gemma_scope.attribution.rows import Rows
from gemma_scope.model.gemma import Gemma
from gemma_scope.model.language_model import LanguageModel
from gemma_scope.sites import Site
from gemma_scope.surgery.select import replace


@dataclasses.dataclass(frozen=True)
class DeepLiftOptions(Options):
  """Options of DeepLIFT.

  Attributes:
    baseline: The reference, as in `GradientOptions`; "mean" wherever a site has
      one. From "zero" the slope of every norm is far from any derivative, and
      sums cancel in float32: read the residual.
  """

  baseline: str | Any | None = None

  def resolved(self, lm: LanguageModel, batch: TokenBatch) -> "DeepLiftOptions":
    """With token ids for a baseline of tokens."""
    return DeepLiftOptions(resolved_baseline(self.baseline, lm, batch))


@functools.partial(jax.jit, static_argnames="site")
def contributions(
  model: Gemma,
  rows: Rows,
  target: ResolvedTarget,
  start: pz.nx.NamedArray,
  difference: pz.nx.NamedArray,
  site: Site,
) -> pz.nx.NamedArray:
  """What each element of a site adds on the way from `start`, float32."""
  names = site.info.axes
  changed = replace(model, [site])

  def f(value: jax.Array) -> jax.Array:
    inputs = {site: pz.nx.wrap(value, *names)}
    return evaluate(changed, rows, target, inputs)[0]

  reference = start.unwrap(*names)
  value = reference + difference.unwrap(*names)
  return pz.nx.wrap(deep_lift(f, value, reference), *names)


def _deep_lift(question: Question) -> Answer:
  q = question
  value, values, expected = np.zeros(0), {}, {}
  for site in q.sites:
    wanted = q.options.baseline
    if wanted is None and has_mean(site):
      wanted = "mean"
    baseline = baseline_at(site, wanted, q.model, q.rows)
    top, bottom, *ends = gradients.path_ends(
      q.model, q.rows, q.target, baseline, site
    )
    values[site] = contributions(q.model, q.rows, q.target, *ends, site)
    value = np.asarray(top)
    change = value - np.asarray(bottom)
    linear = q.target.linear
    expected[site] = change if linear else np.full_like(change, np.nan)
  return Answer(value, values, expected)


DEEP_LIFT = Method(
  _deep_lift, DeepLiftOptions, remedy='baseline="mean", or float32 weights'
)
