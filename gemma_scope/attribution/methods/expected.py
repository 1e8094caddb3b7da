"""Expected gradients (GradientSHAP): integrated gradients from many baselines.

    R = E over b and a of (x - b) * df/dx at b + a (x - b)
    sum R = f(x) - E f(b)     in expectation

Baselines b are drawn from a background set, a from (0, 1). The sum misses its
expectation by the sampling error, which `residual` reports. Source: Erion et
al. 2021, "Improving performance of deep learning models with axiomatic
attribution priors and expected gradients", eq. 3; Lundberg and Lee 2017.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np
from penzai import pz

from gemma_scope.activations.tokens import TokenBatch
from gemma_scope.attribution import gradients
from gemma_scope.attribution.methods.background import (
  Background,
  background_values,
  resolved_background,
)
from gemma_scope.attribution.methods.protocol import (
  Answer,
  Method,
  Options,
  Question,
)
from gemma_scope.attribution.methods.smooth import target_and_value
from gemma_scope.attribution.objectives import ResolvedTarget
from gemma_scope.attribution.rows import Rows
from gemma_scope.errors import ConfigError
from gemma_scope.model.gemma import Gemma
from gemma_scope.model.language_model import LanguageModel
from gemma_scope.sites import Site


@dataclasses.dataclass(frozen=True)
class ExpectedGradientsOptions(Options):
  """Options of expected gradients.

  Attributes:
    background: What baselines are drawn from: "shuffled" (the prompt's own
      tokens in random orders, control tokens in place), texts or rows of token
      ids at least as long as the prompt (cut to its length), or an array of
      values of the site, one a row.
    samples: Pairs of a baseline and a point on the way from it.
    seed: Seed of the draws. Every prompt gets the same, whatever its batch.
  """

  background: str | Any = "shuffled"
  samples: int = 64
  seed: int = 0

  def resolved(
    self, lm: LanguageModel, batch: TokenBatch
  ) -> "ExpectedGradientsOptions":
    """With token ids for the background's texts."""
    _check_samples(self.samples)
    background = resolved_background(
      self.background, lm, batch, (self.samples, self.seed)
    )
    return dataclasses.replace(self, background=background)


def _expected_gradients(question: Question) -> Answer:
  q, o = question, question.options
  background: Background = o.background
  chosen, points = draws(background.count, o.samples, o.seed)
  value, values, expected = np.zeros(0), {}, {}
  for site in q.sites:
    starts, ends = background_values(
      q.model, q.rows, q.target, background, site
    )
    top, x = target_and_value(q.model, q.rows, q.target, site)
    values[site] = _sampled(q, x, starts, (chosen, points), site)
    value = np.asarray(top)
    expected[site] = value - np.asarray(ends)[chosen].mean(axis=0)
  return Answer(value, values, expected)


def draws(
  background: int, samples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
  """Which baselines, and which points on the way from each; [samples].

  No baseline is drawn again before all others were.
  """
  rng = np.random.default_rng(seed)
  rounds = -(-samples // background)
  chosen = [rng.permutation(background) for _ in range(rounds)]
  points = rng.random(samples).astype(np.float32)
  return np.concatenate(chosen)[:samples], points


def _sampled(
  question: Question,
  x: pz.nx.NamedArray,
  starts: Float[Array, "background batch ..."],
  drawn: tuple[np.ndarray, np.ndarray],
  site: Site,
) -> pz.nx.NamedArray:
  """The mean over the samples, as many at once as fit."""
  q, (chosen, points) = question, drawn
  count = gradients.steps_at_once(q.rows, len(chosen))
  extra = -len(chosen) % count  # samples of weight zero: one program for all
  weights = np.pad(
    np.full(len(chosen), 1 / len(chosen), np.float32), (0, extra)
  )
  chosen, points = (
    np.pad(a, (0, extra), mode="edge") for a in (chosen, points)
  )
  total = None
  for first in range(0, len(chosen), count):
    some = slice(first, first + count)
    part = sampled_gradient(
      q.model,
      q.rows,
      q.target,
      x,
      (starts[chosen[some]], points[some], weights[some]),
      site,
    )
    total = part if total is None else jax.tree.map(jnp.add, total, part)
  assert total is not None
  return total


@functools.partial(jax.jit, static_argnames="site")
def sampled_gradient(
  model: Gemma,
  rows: Rows,
  target: ResolvedTarget,
  value: pz.nx.NamedArray,
  samples: tuple[jax.Array, jax.Array, jax.Array],
  site: Site,
) -> pz.nx.NamedArray:
  """The weighted sum of way x gradient at one point of some paths.

  Args:
    model: The model.
    rows: The prompts.
    target: What is explained.
    value: Where all paths end.
    samples: Where each begins, [samples, batch, ...], its point in (0, 1) and
      its weight.
    site: The site.
  """
  starts, points, weights = samples
  x = value.unwrap(*site.info.axes)
  way = x[None] - starts.astype(x.dtype)
  share = gradients.spread(points, x.ndim).astype(x.dtype)
  factors = gradients.spread(weights, x.ndim) * way.astype(jnp.float32)
  path = starts.astype(x.dtype) + share * way
  _, total = gradients.values_and_gradients(
    model, rows, target, path, factors, site
  )
  return total


def _check_samples(samples: int) -> None:
  if samples < 1:
    raise ConfigError(
      "Expected gradients need at least one sample.",
      received=f"samples={samples}",
      instead="for example samples=64",
    )


EXPECTED_GRADIENTS = Method(
  _expected_gradients, ExpectedGradientsOptions, remedy="another background"
)
