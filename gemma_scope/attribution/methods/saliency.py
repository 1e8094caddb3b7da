"""Saliency: how strongly the target reacts to each token, without a sign.

    "l2"   S(token) = |g|_2,   shared as R_i = g_i^2 / |g|_2
    "l1"   S(token) = |g|_1,   shared as R_i = |g_i|

g is the gradient of the target with respect to all elements of a site at one
token. Elements are never negative and add up to the token's score, so
`per_token` is the score by either norm. Nothing is promised about the sum over
tokens. Source: Simonyan, Vedaldi and Zisserman 2014, "Deep Inside Convolutional
Networks", section 3 (there with the maximum over channels).
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np
from penzai import pz

from gemma_scope import axes
from gemma_scope.attribution.evaluate import evaluate, zero_offsets
from gemma_scope.attribution.methods.protocol import (
  Answer,
  Method,
  Options,
  Question,
  nothing_promised,
)
from gemma_scope.attribution.objectives import ResolvedTarget
from gemma_scope.attribution.rows import Rows, Values
from gemma_scope.errors import ConfigError
from gemma_scope.model.gemma import Gemma
from gemma_scope.sites import Site
from gemma_scope.surgery.select import offset

NORMS = ("l2", "l1")


@dataclasses.dataclass(frozen=True)
class SaliencyOptions(Options):
  """Options of saliency.

  Attributes:
    norm: "l2" (Euclidean length) or "l1" (sum of absolute values).
  """

  norm: str = "l2"


@functools.partial(jax.jit, static_argnames="sites")
def site_gradients(
  model: Gemma, rows: Rows, target: ResolvedTarget, sites: tuple[Site, ...]
) -> tuple[Float[Array, " batch"], Values]:
  """The target of each row, and its gradient at every site, float32.

  One backward pass for all sites: the gradient at a site is that of an offset
  of zero added there.
  """
  zeros = zero_offsets(model, rows, sites)
  changed = offset(model, sites)

  def total(offsets: Values) -> tuple[jax.Array, jax.Array]:
    value, _ = evaluate(changed, rows, target, offsets)
    return value.sum(), value

  gradients, value = jax.grad(total, has_aux=True)(zeros)
  return value, jax.tree.map(lambda g: g.astype(jnp.float32), gradients)


def shares(gradient: pz.nx.NamedArray, norm: str) -> pz.nx.NamedArray:
  """Each element's share of its token's norm."""
  names = tuple(gradient.named_axes)
  g = gradient.unwrap(*names)
  if norm == "l1":
    return pz.nx.wrap(jnp.abs(g), *names)
  others = tuple(
    i for i, n in enumerate(names) if n not in (axes.BATCH, axes.SEQ)
  )
  length = jnp.linalg.norm(g, axis=others, keepdims=True)
  safe = jnp.where(length > 0, length, 1.0)
  return pz.nx.wrap(g * (g / safe), *names)


def _saliency(question: Question) -> Answer:
  q = question
  if q.options.norm not in NORMS:
    raise ConfigError(
      "Saliency needs a known norm.",
      received=f"norm={q.options.norm!r}",
      instead=" or ".join(f"norm={name!r}" for name in NORMS),
    )
  value, gradients = site_gradients(q.model, q.rows, q.target, q.sites)
  value = np.asarray(value)
  values = {s: shares(g, q.options.norm) for s, g in gradients.items()}
  return Answer(value, values, nothing_promised(value, q.sites))


SALIENCY = Method(_saliency, SaliencyOptions)
