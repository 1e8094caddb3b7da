"""Integrated gradients: the slope along a straight path from a baseline.

    R = (x - b) * mean over a in (0, 1) of df/dx at b + a (x - b)
    sum R = f(x) - f(b), up to the steps' error, which is reported

Source: Sundararajan, Taly and Yan 2017, "Axiomatic Attribution for Deep
Networks", eq. 1. The path is computed in `gradients`.

At embeddings of exactly zero there is no gradient to average: every norm
multiplies it by eps^-1/2 = 1000, so that it grows a millionfold a layer and
leaves float32 after six. "trapezoid" from "zero" asks for that point
and is refused; the other quadratures leave both ends of the path out.
"""

import dataclasses
from typing import Any

import numpy as np

from gemma_scope.activations.tokens import TokenBatch
from gemma_scope.attribution import gradients
from gemma_scope.attribution.baselines import baseline_at, resolved_baseline
from gemma_scope.attribution.methods.protocol import (
  Answer,
  Method,
  Options,
  Question,
)
from gemma_scope.model.language_model import LanguageModel


@dataclasses.dataclass(frozen=True)
class GradientOptions(Options):
  """Options of integrated gradients.

  Attributes:
    steps: Points of the integration path.
    quadrature: "gauss_legendre", "midpoint" or "trapezoid".
    baseline: Where integration starts: "mean" (the default at `embed`), "pad",
      "zero" (elsewhere), an array, an `OtherPrompt` or `ReplacedTokens` (see
      `baselines`).
  """

  steps: int = 32
  quadrature: str = "gauss_legendre"
  baseline: str | Any | None = None

  def resolved(self, lm: LanguageModel, batch: TokenBatch) -> "GradientOptions":
    """With token ids for a baseline of tokens."""
    baseline = resolved_baseline(self.baseline, lm, batch)
    return dataclasses.replace(self, baseline=baseline)


def _integrated_gradients(question: Question) -> Answer:
  q, o = question, question.options
  nodes = gradients.quadrature(o.quadrature, o.steps)
  value, values, expected = np.zeros(0), {}, {}
  for site in q.sites:
    start = baseline_at(site, o.baseline, q.model, q.rows)
    top, bottom, relevance = gradients.integrated_gradients(
      q.model, q.rows, q.target, start, nodes, site
    )
    value = np.asarray(top)
    values[site], expected[site] = relevance, value - np.asarray(bottom)
  return Answer(value, values, expected)


INTEGRATED_GRADIENTS = Method(
  _integrated_gradients,
  GradientOptions,
  remedy='quadrature="gauss_legendre" or "midpoint", which leave out the '
  'baseline itself, or baseline="mean"',
)
