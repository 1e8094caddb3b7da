"""How learning rate and sparsity weight go over a run.

    rate(s)   = warm-up along a cosine from `warmup_from` to 1, then 1, then a
                line to 0 over the last `decay_steps`
    weight(s) = s / warmup_steps up to 1

Both are shares, to be multiplied with each member's own numbers; `step` counts
from 0.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gemma_scope.training.config import Optimiser, Sparsity

Step = Int[Array, ""]


def rate(step: Step, optimiser: Optimiser, steps: int) -> Float[Array, ""]:
  """The share of the learning rate at a step.

  Args:
    step: From 0.
    optimiser: With the lengths of its ends.
    steps: Of the whole run.
  """
  done = _share(step, optimiser.warmup_steps)
  first = optimiser.warmup_from
  risen = first + (1 - first) * (1 - jnp.cos(jnp.pi * done)) / 2
  if not optimiser.decay_steps:
    return risen
  left = (steps - step.astype(jnp.float32)) / optimiser.decay_steps
  return risen * jnp.clip(left, 0, 1)


def sparsity(step: Step, options: Sparsity) -> Float[Array, ""]:
  """The share of the sparsity weight at a step."""
  return _share(step, options.warmup_steps)


def _share(step: Step, length: int) -> jax.Array:
  """The share of `length` that is done, at most 1."""
  if not length:
    return jnp.float32(1)
  return jnp.minimum(step.astype(jnp.float32) / length, 1)
