"""DeepLIFT: what each input adds on the way from a reference to a value.

    R_i = (x_i - x0_i) m_i,   sum_i R_i = f(x) - f(x0)

Both runs are one program, side by side, and every operation takes its slope
between them (see `rescale`). Source: Shrikumar et al. 2017, "Learning Important
Features Through Propagating Activation Differences", rescale rule.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gemma_scope.attribution.composites import DEEPLIFT, RuleTable
from gemma_scope.attribution.rescale import REFERENCE
from gemma_scope.attribution.transform import transform


def deep_lift(
  f: Callable[[Any], jax.Array],
  x: Any,
  reference: Any,
  rules: RuleTable = DEEPLIFT,
) -> Any:
  """Contributions of the input's elements to the change of a function.

  They sum to f(x) - f(reference) where every operation has the rescale rule or
  is linear. A `stop_gradient` inside `f` hides what it holds, and a rule that
  is no rescale rule conserves what it conserves.

  Args:
    f: A JAX function to a number, or to an array that is summed.
    x: Its argument: an array, or a tree of them.
    reference: An argument of the same shapes and dtypes.
    rules: A rule table; by default rescale everywhere.

  Returns:
    Contributions, a tree like `x`, float32.

  Raises:
    RuleError: If an operation has no rule.
  """
  pair = jax.tree.map(lambda a, b: jnp.stack([a, b]), x, reference)
  both = jax.vmap(transform(f, rules), axis_name=REFERENCE)
  # The slopes are those of both runs: only the first one is passed back.
  slopes = jax.grad(lambda p: both(p)[0].sum())(pair)
  return jax.tree.map(_contributions, pair, slopes)


def _contributions(pair: jax.Array, slopes: jax.Array) -> jax.Array:
  pair = pair.astype(jnp.float32)
  return (pair[0] - pair[1]) * slopes[0].astype(jnp.float32)
