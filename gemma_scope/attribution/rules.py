"""Rules of layer-wise relevance propagation, each a surrogate.

A rule says how relevance passes one operation. With x the active input, w the
weights it is multiplied with, y the output and R relevance:

    Native     the derivative as it is                    (gradient x input)
    Stop       y is a constant factor from here on
    Softmax    the derivative of exp, where its sum divides it  (AttnLRP)
    Identity   R_x = R_y                                  one input, one output
    Half       half the derivative; each factor of a product gets half of R_y
    Epsilon    R_i = sum_j x_i w_ij / (z_j + eps sign z_j) R_j
    Gamma      the same with w + gamma w+, positive parts favoured
    ZPlus      the same with the positive parts of x w alone
    AlphaBeta  alpha (positive parts) - beta (negative parts), alpha - beta = 1
    WSquare    R_i = sum_j w_ij^2 / sum_i w_ij^2 R_j      for inputs

Sources: Bach et al. 2015, "On Pixel-Wise Explanations …", eqs. 56-63;
Montavon et al. 2019, "Layer-Wise Relevance Propagation: An Overview", table
10.1; Achtibat et al. 2024, "AttnLRP", eqs. 5-14. LRP is reported to be
patented technology, free for research.
"""

from collections.abc import Callable
import dataclasses
import typing

import jax
import jax.numpy as jnp

from gemma_scope.attribution.rescale import Rescale
from gemma_scope.attribution.surrogate import ratio, same_value
from gemma_scope.errors import ConfigError

# A product with weights: (x, w) -> y.
Product = Callable[[jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Native:
  """Keeps the derivative of the operation."""


@dataclasses.dataclass(frozen=True)
class Stop:
  """Takes the output as a constant factor (a norm's scale, a gate's share).

  What it multiplies stays active. Where nothing active is left to multiply,
  relevance would vanish without a word; the transform raises instead.

  Attributes:
    own: Whether the factor may multiply its own input only (GELU, SiLU).
  """

  own: bool = False


@dataclasses.dataclass(frozen=True)
class Softmax:
  """Keeps the derivative of an exp that its own sum divides.

  It does not conserve relevance (AttnLRP, eq. 13). An exp that is used in any
  other way is refused.
  """


@dataclasses.dataclass(frozen=True)
class Identity:
  """Passes all relevance of an elementwise function to its input.

  Attributes:
    eps: Keeps the ratio y / x finite.
  """

  eps: float = 1e-9

  def unary(self, x: jax.Array, y: jax.Array) -> jax.Array:
    """The surrogate x * stop(y / x)."""
    return same_value(y, x * ratio(y, x, self.eps))


@dataclasses.dataclass(frozen=True)
class Half:
  """Shares relevance equally between the factors of a product."""

  def share(self, y: jax.Array, factors: int = 2) -> jax.Array:
    """The surrogate y / factors."""
    return same_value(y, y / factors)


@dataclasses.dataclass(frozen=True)
class Epsilon:
  """The epsilon rule: weak, contradictory evidence is absorbed.

  Attributes:
    eps: Added to the denominator with its sign.
  """

  eps: float = 1e-6

  def product(
    self, f: Product, x: jax.Array, w: jax.Array, y: jax.Array
  ) -> jax.Array:
    """The surrogate y * stop(y / stabilise(y))."""
    del f, x, w
    return same_value(y, y * ratio(y, y, self.eps))


@dataclasses.dataclass(frozen=True)
class Gamma:
  """The generalised gamma rule, for inputs and outputs of both signs.

  Attributes:
    gamma: How much the parts that agree with the output's sign are favoured.
    eps: Keeps the denominator from zero.
  """

  gamma: float = 0.25
  eps: float = 1e-9

  def product(
    self, f: Product, x: jax.Array, w: jax.Array, y: jax.Array
  ) -> jax.Array:
    """The surrogate with favoured weights, chosen by the sign of y."""
    up, down = jnp.maximum(x, 0), jnp.minimum(x, 0)
    for_positive = w + self.gamma * jnp.maximum(w, 0)
    for_negative = w + self.gamma * jnp.minimum(w, 0)
    positive = f(up, for_positive) + f(down, for_negative)
    negative = f(up, for_negative) + f(down, for_positive)
    z = jnp.where(y >= 0, positive, negative)
    return same_value(y, z * ratio(y, z, self.eps))


@dataclasses.dataclass(frozen=True)
class AlphaBeta:
  """The alpha-beta rule.

  Attributes:
    alpha: Weight of the positive parts.
    beta: Weight of the negative parts; alpha - beta is 1.
    eps: Keeps the denominators from zero.
  """

  alpha: float = 2.0
  beta: float = 1.0
  eps: float = 1e-9

  def __post_init__(self) -> None:
    if abs(self.alpha - self.beta - 1.0) > 1e-6 or self.beta < 0:
      raise ConfigError(
        "The alpha-beta rule conserves relevance only if alpha - beta is 1.",
        received=f"alpha={self.alpha}, beta={self.beta}",
        instead="for example AlphaBeta(2.0, 1.0), or ZPlus()",
      )

  def product(
    self, f: Product, x: jax.Array, w: jax.Array, y: jax.Array
  ) -> jax.Array:
    """The surrogate from positive and negative parts."""
    up, down = jnp.maximum(x, 0), jnp.minimum(x, 0)
    w_up, w_down = jnp.maximum(w, 0), jnp.minimum(w, 0)
    positive = f(up, w_up) + f(down, w_down)
    negative = f(up, w_down) + f(down, w_up)
    surrogate = self.alpha * positive * ratio(y, positive, self.eps)
    if self.beta:
      surrogate -= self.beta * negative * ratio(y, negative, self.eps)
    return same_value(y, surrogate)


@dataclasses.dataclass(frozen=True)
class ZPlus:
  """The z+ rule: positive parts alone; AlphaBeta(1, 0).

  Attributes:
    eps: Keeps the denominator from zero.
  """

  eps: float = 1e-9

  def product(
    self, f: Product, x: jax.Array, w: jax.Array, y: jax.Array
  ) -> jax.Array:
    """The surrogate from positive parts."""
    return AlphaBeta(1.0, 0.0, self.eps).product(f, x, w, y)


@dataclasses.dataclass(frozen=True)
class WSquare:
  """The w^2 rule, for inputs whose value means nothing (zero included).

  Relevance is value x derivative, so x must not be exactly zero where it is to
  receive any: such elements get none, and the rest conserve less.

  Attributes:
    eps: Keeps ratios from zero denominators.
  """

  eps: float = 1e-9

  def product(
    self, f: Product, x: jax.Array, w: jax.Array, y: jax.Array
  ) -> jax.Array:
    """The surrogate from squared weights."""
    square = w * w
    total = f(jnp.ones_like(x), square)
    ones = x * ratio(jnp.ones_like(x), x, self.eps)
    return same_value(y, f(ones, square) * ratio(y, total, self.eps))


@typing.runtime_checkable
class UnaryRule(typing.Protocol):
  """What a rule for elementwise functions offers; write your own."""

  def unary(self, x: jax.Array, y: jax.Array) -> jax.Array:
    """The result `y` of the input `x`, with another derivative."""
    ...


@typing.runtime_checkable
class ProductRule(typing.Protocol):
  """What a rule for products with weights offers; write your own."""

  def product(
    self, f: Product, x: jax.Array, w: jax.Array, y: jax.Array
  ) -> jax.Array:
    """The result `y` = f(x, w), with another derivative."""
    ...


Rule = Native | Stop | Softmax | Half | Rescale | UnaryRule | ProductRule
