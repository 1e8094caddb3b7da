"""The five activations: from products x @ w_enc to sparse latents.

    ReLU       max(p, 0), where p = x @ w_enc + b_enc
    JumpReLU   p * [p > threshold], p positive (strictly above)
    TopK       the k largest positive p of each row
    BatchTopK  the k * rows largest positive p of the whole batch
    gated      [p > 0] * max(x @ w_enc * exp(log_gain) + b_magnitude, 0)

Sources: Rajamanoharan et al. 2024, "Jumping Ahead" (JumpReLU, eq. 5) and
"Improving Dictionary Learning with Gated SAEs" (eq. 6 to 8); Gao et al. 2024,
"Scaling and Evaluating Sparse Autoencoders" (TopK); Bussmann et al. 2024,
"BatchTopK". The derivative is that of the active latents with the choice of
which are active held constant; surrogate gradients of thresholds are the
trainer's business.
"""

from collections.abc import Mapping
import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from penzai import pz

from gemma_scope import axes
from gemma_scope.dictionaries.top_k import batch_top_k_mask, top_k_mask
from gemma_scope.errors import ConfigError

Rows = Float[Array, "rows latents"]
Bias = Float[Array, " latents"]


@pz.pytree_dataclass
class Relu(pz.Struct):
  """Keeps what is positive."""

  def __call__(self, products: Rows, bias: Bias) -> Rows:
    """Latents from products [rows, latents] and the encoder's bias."""
    return jax.nn.relu(products + bias[None, :])


@pz.pytree_dataclass
class JumpRelu(pz.Struct):
  """Keeps what is positive and strictly above a threshold of its own.

  Attributes:
    threshold: {latents}.
  """

  threshold: pz.nx.NamedArray

  def __call__(self, products: Rows, bias: Bias) -> Rows:
    """Latents from products [rows, latents] and the encoder's bias."""
    p = products + bias[None, :]
    threshold = self.threshold.unwrap(axes.LATENTS).astype(p.dtype)
    return jnp.where(p > threshold[None, :], jax.nn.relu(p), 0)


@pz.pytree_dataclass
class TopK(pz.Struct):
  """Keeps the k largest positive latents of each row.

  Attributes:
    k: How many.
  """

  k: int = dataclasses.field(metadata={"pytree_node": False})

  def __post_init__(self) -> None:
    _check_k(self.k)

  def __call__(self, products: Rows, bias: Bias) -> Rows:
    """Latents from products [rows, latents] and the encoder's bias."""
    p = products + bias[None, :]
    return jnp.where(top_k_mask(p, self.k), p, 0)


@pz.pytree_dataclass
class BatchTopK(pz.Struct):
  """Keeps the k * rows largest positive latents of the whole batch.

  A row's latents depend on the rows beside it: for use on single prompts turn
  it into a `JumpRelu` with `batch_top_k_to_jump_relu`. Under `jax.vmap` each
  example is a batch of its own.

  Attributes:
    k: How many a row, on average.
  """

  k: int = dataclasses.field(metadata={"pytree_node": False})

  def __post_init__(self) -> None:
    _check_k(self.k)

  def __call__(self, products: Rows, bias: Bias) -> Rows:
    """Latents from products [rows, latents] and the encoder's bias."""
    p = products + bias[None, :]
    return jnp.where(batch_top_k_mask(p, self.k * p.shape[0]), p, 0)


@pz.pytree_dataclass
class Gated(pz.Struct):
  """One path decides which latents are active, another how much.

  The encoder's bias is that of the deciding path.

  Attributes:
    log_gain: {latents}, r_mag of the paper.
    b_magnitude: {latents}, b_mag of the paper.
  """

  log_gain: pz.nx.NamedArray
  b_magnitude: pz.nx.NamedArray

  def __call__(self, products: Rows, bias: Bias) -> Rows:
    """Latents from products [rows, latents] and the encoder's bias."""
    gain = jnp.exp(self.log_gain.unwrap(axes.LATENTS).astype(products.dtype))
    shift = self.b_magnitude.unwrap(axes.LATENTS).astype(products.dtype)
    magnitude = jax.nn.relu(products * gain[None, :] + shift[None, :])
    return jnp.where(products + bias[None, :] > 0, magnitude, 0)


Activation = Relu | JumpRelu | TopK | BatchTopK | Gated

ACTIVATIONS: Mapping[str, type] = {
  "relu": Relu,
  "jump_relu": JumpRelu,
  "top_k": TopK,
  "batch_top_k": BatchTopK,
  "gated": Gated,
}


def name_of(activation: Activation) -> str:
  """The key of `ACTIVATIONS` for an activation."""
  return next(n for n, t in ACTIVATIONS.items() if type(activation) is t)


def jump_relu(threshold: jax.Array) -> JumpRelu:
  """A JumpReLU from a plain threshold [latents]."""
  return JumpRelu(pz.nx.wrap(threshold, axes.LATENTS))


def batch_top_k_to_jump_relu(threshold: float, num_latents: int) -> JumpRelu:
  """The activation that a trained BatchTopK is used with.

  Args:
    threshold: The mean over training batches of the smallest value that was
      kept (Bussmann et al. 2024, eq. 5).
    num_latents: How many latents there are.
  """
  return jump_relu(jnp.full((num_latents,), threshold, jnp.float32))


def _check_k(k: int) -> None:
  if isinstance(k, bool) or not isinstance(k, int) or k < 1:
    raise ConfigError(
      "TopK keeps a whole number of latents, at least one.",
      received=f"k={k!r}",
      instead="for example k=64",
    )
