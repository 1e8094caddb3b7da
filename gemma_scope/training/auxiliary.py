"""AuxK: dead latents learn to rebuild what the living ones miss.

    e  = stop(y - y_K)
    e' = sum over parts of top_k(relu(z of dead latents), aux_k) @ w_dec
    loss = weight * mean |e - e'|^2        (no term while no latent is dead)

Source: Gao et al. 2024, "Scaling and Evaluating Sparse Autoencoders", A.2. Of
the dead latents only the `aux_pool` longest dead take part, so that the term
costs their share of a step whether or not there are any.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gemma_scope.dictionaries.top_k import top_k_mask
from gemma_scope.training.parameters import Layout, Params
from gemma_scope.training.products import matmul

if TYPE_CHECKING:
  from gemma_scope.training.config import Group


def aux_loss(
  params: Params,
  zs: Sequence[Float[Array, "rows latents"]],
  missed: tuple[Float[Array, "rows written"], Float[Array, " rows"] | None],
  dead: Sequence[Float[Array, " latents"]],
  setting: "tuple[Group, Layout, str]",
) -> Float[Array, ""]:
  """The weighted loss of the dead latents.

  Args:
    params: One member's.
    zs: Products with the encoder's bias, of each part.
    missed: y - y_K, and what rows count (None: one each).
    dead: Rows since each latent fired where it is dead, else 0.
    setting: Group, layout and precision.
  """
  group, layout, precision = setting
  options = group.revival
  e, weights = jax.lax.stop_gradient(missed)
  rebuilt = jnp.zeros_like(e)
  for p, part in enumerate(params["parts"]):
    pool = min(options.aux_pool, zs[p].shape[1])
    since, chosen = jax.lax.top_k(dead[p].astype(jnp.float32), pool)
    z = jnp.where((since > 0)[None, :], zs[p][:, chosen], 0)
    f = jnp.where(top_k_mask(z, min(options.aux_k, pool)), z, 0)
    y = matmul(f, part["w_dec"][chosen], precision)
    before = layout.offset(p)
    rebuilt = rebuilt + jnp.pad(y, ((0, 0), (before, 0)))
  any_dead = jnp.stack([(d > 0).any() for d in dead]).any()
  squares = jnp.square(e - rebuilt).sum(axis=1)
  value = (squares if weights is None else squares * weights).mean()
  return options.aux_weight * jnp.where(any_dead, value, 0)
