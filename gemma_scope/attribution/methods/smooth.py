"""SmoothGrad: the mean gradient around the prompt, which evens out ripples.

    G = mean over n of df/dx at x + n,   n ~ N(0, (noise * spread)^2)
    R = x * G, or G itself

`spread` is the standard deviation of the site over all elements of the prompt's
own tokens, so that one number for the noise serves every site. Source: Smilkov
et al. 2017, "SmoothGrad: removing noise by adding noise", eq. 1 (there relative
to the image's range). Promises no sum.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np
from penzai import pz

from gemma_scope import axes
from gemma_scope.attribution import gradients
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
from gemma_scope.sites import Site
from gemma_scope.surgery.select import tap


@dataclasses.dataclass(frozen=True)
class SmoothGradOptions(Options):
  """Options of SmoothGrad.

  Attributes:
    samples: Noisy copies.
    noise: Standard deviation of the noise, in units of the site's own.
    times_input: Whether the mean gradient is multiplied with the value; if
      not, relevance is the mean gradient.
    seed: Seed of the noise. Every prompt gets the same, whatever its batch.
  """

  samples: int = 32
  noise: float = 0.15
  times_input: bool = True
  seed: int = 0


def _smoothgrad(question: Question) -> Answer:
  q, o = question, question.options
  if o.samples < 1 or not o.noise >= 0:
    raise ConfigError(
      "SmoothGrad needs at least one sample, and noise that is not negative.",
      received=f"samples={o.samples}, noise={o.noise}",
      instead="for example samples=32, noise=0.15",
    )
  value, values = np.zeros(0), {}
  for site in q.sites:
    top, x = target_and_value(q.model, q.rows, q.target, site)
    count = gradients.steps_at_once(q.rows, o.samples)
    total = None
    for first in range(0, o.samples, count):
      samples = jnp.arange(first, first + count)
      weights = (samples < o.samples) / o.samples
      part = noisy_gradient(
        q.model,
        q.rows,
        q.target,
        x,
        (samples, weights, jax.random.key(o.seed), jnp.float32(o.noise)),
        site,
      )
      total = part if total is None else jax.tree.map(jnp.add, total, part)
    if o.times_input:
      total = jax.tree.map(gradients.value_x_gradient, x, total)
    value, values[site] = np.asarray(top), total
  return Answer(value, values, nothing_promised(value, q.sites))


@functools.partial(jax.jit, static_argnames="site")
def target_and_value(
  model: Gemma, rows: Rows, target: ResolvedTarget, site: Site
) -> tuple[Float[Array, " batch"], pz.nx.NamedArray]:
  """The target of each row, and what a site has there."""
  value, taps = evaluate(tap(model, [site]), rows, target, {})
  return value, taps[site]


@functools.partial(jax.jit, static_argnames="site")
def noisy_gradient(
  model: Gemma,
  rows: Rows,
  target: ResolvedTarget,
  value: pz.nx.NamedArray,
  noise: tuple[jax.Array, jax.Array, jax.Array, jax.Array],
  site: Site,
) -> pz.nx.NamedArray:
  """The weighted sum of gradients at some noisy copies of a site's value.

  Args:
    model: The model.
    rows: The prompts.
    target: What is explained.
    value: The site's value.
    noise: Numbers of the copies, their weights, a key, and the noise's
      standard deviation in units of the site's.
    site: The site.
  """
  samples, weights, key, size = noise
  names = site.info.axes
  x = value.unwrap(*names)
  sigma = size * _spread(x, rows, names)
  shape = (1, *x.shape[1:])
  seq = names.index(axes.SEQ)
  draws = jax.vmap(lambda i: _draw(jax.random.fold_in(key, i), shape, seq))
  points = x[None] + (sigma[None] * draws(samples)).astype(x.dtype)
  factors = gradients.spread(weights, x.ndim)
  _, total = gradients.values_and_gradients(
    model, rows, target, points, factors, site
  )
  return total


def _draw(key: jax.Array, shape: tuple[int, ...], seq: int) -> jax.Array:
  """Normal noise that at one token does not depend on how many there are."""
  columns: Int[Array, " seq"] = jnp.arange(shape[seq])
  rest = (*shape[:seq], *shape[seq + 1 :])
  one = lambda i: jax.random.normal(jax.random.fold_in(key, i), rest)  # noqa: E731
  return jnp.moveaxis(jax.vmap(one)(columns), 0, seq)


def _spread(
  x: Float[Array, "batch ..."], rows: Rows, names: tuple[str, ...]
) -> Float[Array, "batch ..."]:
  """Standard deviation over the elements of each prompt's own tokens."""
  real = jnp.ones(x.shape, bool)
  for i, name in enumerate(names):
    if name in (axes.SEQ, axes.KV_SEQ):
      shape = [1] * x.ndim
      shape[0], shape[i] = rows.segment_ids.shape
      real &= (rows.segment_ids != 0).reshape(shape)
  over = tuple(range(1, x.ndim))
  return jnp.std(x.astype(jnp.float32), axis=over, where=real, keepdims=True)


SMOOTHGRAD = Method(_smoothgrad, SmoothGradOptions)
