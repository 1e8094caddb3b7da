"""Dead latents start again at rows that are rebuilt badly.

    row       drawn with probability ~ |y - y_K|^4
    w_dec     its y - b_dec, to norm 1
    w_enc     its x - b_in, to 0.2 times the mean norm of living encoders
    b_enc     0; the threshold as at the start; Adam's moments 0

every `resample_every` steps, until `resample_until`. Source: Bricken et al.
2023, "Towards Monosemanticity", appendix "Neuron Resampling" (loss squared).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gemma_scope.training.config import Group
from gemma_scope.training.losses import Batch, Seen
from gemma_scope.training.parameters import Layout, Part, unit_rows

_SHARE_OF_NORM = 0.2


def resample(
  state: Any,
  batch: Batch,
  seen: Seen,
  step: Array,
  setting: tuple[Group, Layout],
) -> Any:
  """The state with dead latents started again, if it is time.

  Args:
    state: A `GroupState`, after the step.
    batch: The rows of the step, [members, rows, d].
    seen: What the step saw.
    step: Its number.
    setting: Group and layout.
  """
  group, layout = setting
  every, until = group.revival.resample_every, group.revival.resample_until
  now = (step > 0) & (step % every == 0) & (step <= until)

  def again(state: Any) -> Any:
    seeds = jnp.asarray([m.seed for m in group.members], jnp.uint32)
    parts, since = list(state.params["parts"]), list(state.since)
    masks = []
    for p in range(layout.parts):
      keys = jax.vmap(
        lambda s, p=p: jax.random.fold_in(
          jax.random.fold_in(jax.random.key(s), step), p
        )
      )(seeds)
      dead = since[p] > group.revival.dead_after
      y = batch.y - state.params["b_dec"][:, None, :]
      parts[p] = jax.vmap(_restart, in_axes=(0, 0, 0, 0, 0, 0, None))(
        parts[p],
        *(keys, dead, batch.xs[p], y[:, :, layout.offset(p) :], seen.missed),
        group.sparsity.threshold,
      )
      since[p] = jnp.where(dead, 0, since[p])
      masks.append(dead)
    params = state.params | {"parts": tuple(parts)}
    moments = _forget(state.moments, state.params, masks)
    return state._replace(params=params, since=tuple(since), moments=moments)

  return jax.lax.cond(now, again, lambda state: state, state)


def _restart(
  part: Part,
  key: Array,
  dead: Array,
  x: Array,
  y: Array,
  missed: Array,
  threshold: float,
) -> Part:
  """One member's part with its dead latents started again."""
  logits = 2 * jnp.log(jnp.square(missed).sum(axis=1) + 1e-30)
  rows = jax.random.categorical(key, logits, shape=dead.shape)
  norms = jnp.linalg.norm(part["w_enc"], axis=0)
  alive = (~dead).sum()
  mean = jnp.where(dead, 0, norms).sum() / jnp.maximum(alive, 1)
  scale = _SHARE_OF_NORM * jnp.where(alive > 0, mean, 1)
  read = scale * unit_rows(x[rows] - part["b_in"][None, :])
  fresh = {
    "w_enc": read.T,
    "w_dec": unit_rows(y[rows]),
    "b_enc": jnp.zeros_like(part["b_enc"]),
    "threshold": jnp.full_like(part["b_enc"], threshold),
    "log_gain": jnp.zeros_like(part["b_enc"]),
    "b_magnitude": jnp.zeros_like(part["b_enc"]),
  }
  return part | {
    name: jnp.where(_latents_of(name, dead), new, part[name])
    for name, new in fresh.items()
    if name in part
  }


def _latents_of(name: str, dead: Array) -> Array:
  """The mask shaped to the array called `name`."""
  if name == "w_enc":
    return dead[None, :]
  return dead[:, None] if name == "w_dec" else dead


def _forget(moments: Any, params: Any, masks: list[Array]) -> Any:
  """Moments of dead latents set to zero, wherever the optimiser keeps them."""
  structure = jax.tree.structure(params)

  def is_params(node: Any) -> bool:
    return jax.tree.structure(node) == structure

  def cleared(node: Any) -> Any:
    if not is_params(node):
      return node
    parts = tuple(
      part
      | {
        name: jnp.where(
          jax.vmap(lambda m, n=name: _latents_of(n, m))(mask), 0, v
        )
        for name, v in part.items()
        if name not in ("b_in", "skip")
      }
      for part, mask in zip(node["parts"], masks)
    )
    return node | {"parts": parts}

  return jax.tree.map(cleared, moments, is_leaf=is_params)
