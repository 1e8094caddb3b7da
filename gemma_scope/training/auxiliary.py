"""AuxK: dead latents learn to rebuild what the living ones miss.

    e  = stop(y - y_K)
    e' = sum over parts of top_k(relu(z of dead latents), aux_k) @ w_dec
    loss = weight * mean |e - e'|^2        (no term while no latent is dead)

Source: Gao et al. 2024, "Scaling and Evaluating Sparse Autoencoders", A.2. Of
the dead latents only the `aux_pool` longest dead take part, so that the term
costs their share of a step, and nothing while there are none.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gemma_scope.dictionaries.top_k import top_k_mask
from gemma_scope.training.parameters import Layout, Params
from gemma_scope.training.products import matmul

if TYPE_CHECKING:
  from gemma_scope.training.config import Group


def aux_loss(
  params: Params,
  z_of: Callable[[int, Array], Float[Array, "rows pool"]],
  missed: tuple[Float[Array, "rows written"], Float[Array, " rows"] | None],
  dead: Sequence[Float[Array, " latents"]],
  setting: "tuple[Group, Layout, str]",
) -> Float[Array, ""]:
  """The weighted loss of the dead latents.

  Args:
    params: One member's.
    z_of: From a part's number and indices of its latents to their products
      with the encoder's bias.
    missed: y - y_K, and what rows count (None: one each).
    dead: Rows since each latent fired where it is dead, else 0.
    setting: Group, layout and precision.
  """
  e, weights = jax.lax.stop_gradient(missed)
  any_dead = jnp.stack([(d > 0).any() for d in dead]).any()

  def value() -> Float[Array, ""]:
    rebuilt = _rebuilt(params, z_of, dead, setting)
    squares = jnp.square(e - rebuilt).sum(axis=1)
    return (squares if weights is None else squares * weights).mean()

  found = jax.lax.cond(_anywhere(any_dead), value, lambda: jnp.float32(0))
  return setting[0].revival.aux_weight * jnp.where(any_dead, found, 0)


@jax.custom_batching.custom_vmap
def _anywhere(flag: Bool[Array, ""]) -> Bool[Array, ""]:
  """The flag; under `vmap` whether any is set, so that `cond` stays one."""
  return flag


@_anywhere.def_vmap
def _(size: int, batched: Any, flag: Array) -> Any:
  del size
  return _anywhere(flag.any(axis=0) if batched[0] else flag), False


def _rebuilt(
  params: Params,
  z_of: Callable[[int, Array], Array],
  dead: Sequence[Array],
  setting: "tuple[Group, Layout, str]",
) -> Float[Array, "rows written"]:
  group, layout, precision = setting
  options = group.revival
  total = None
  for p, part in enumerate(params["parts"]):
    pool = min(options.aux_pool, dead[p].shape[0])
    since, chosen = jax.lax.top_k(dead[p].astype(jnp.float32), pool)
    z = jnp.where((since > 0)[None, :], z_of(p, chosen), 0)
    f = jnp.where(top_k_mask(z, min(options.aux_k, pool)), z, 0)
    y = matmul(f, part["w_dec"][chosen], precision)
    y = jnp.pad(y, ((0, 0), (layout.offset(p), 0)))
    total = y if total is None else total + y
  assert total is not None, "a dictionary has a part"
  return total
