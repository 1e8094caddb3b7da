"""One step of all groups, as one compiled program.

    step = make_step(config, widths)
    state, metrics = step(state, rows)        # `state` is given away

For each group: rows of the members' sites, scaled; loss and gradients of every
member side by side (`each_member`); decoder gradients projected, Adam, decoder
rows back to norm 1; counts of what fired. The arrays of the old state are
reused for the new one.
"""

from collections.abc import Callable, Mapping
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gemma_scope.activations.rows import Rows
from gemma_scope.sites import Site
from gemma_scope.training import schedules
from gemma_scope.training.config import Group, TrainConfig
from gemma_scope.training.losses import (
  Batch,
  Numbers,
  Seen,
  loss,
)
from gemma_scope.training.options import Optimiser
from gemma_scope.training.parameters import (
  Layout,
  Params,
  constrain,
  project_gradients,
)
from gemma_scope.training.resampling import resample
from gemma_scope.training.state import (
  Alarm,
  GroupState,
  TrainState,
  layouts,
  transformation,
)

Metrics = tuple[dict[str, Array], ...]  # one a group, arrays [members, …]
Step = Callable[[TrainState, Rows], tuple[TrainState, Metrics]]
Setting = tuple[Group, Layout, TrainConfig]
_THRESHOLD_MEMORY = 0.99


def make_step(config: TrainConfig, widths: Mapping[Site, int]) -> Step:
  """Compiles, at its first call, the step of a run.

  Args:
    config: The run.
    widths: How many numbers a vector at each of its sites has.

  Returns:
    (state, rows) -> (state, metrics). Metrics of a group are arrays [members]:
    the terms of the loss by name, "l0", "fvu", "dead" (share of latents),
    "learning_rate"; and "alarm_step", "alarm_terms" (see `state.Alarm`).
  """
  shapes = layouts(config, widths)

  @functools.partial(jax.jit, donate_argnums=0)
  def step(state: TrainState, rows: Rows) -> tuple[TrainState, Metrics]:
    done = [
      _group_step(g, state.step, rows, (group, layout, config))
      for g, group, layout in zip(state.groups, config.groups, shapes)
    ]
    groups = tuple(g for g, _ in done)
    return TrainState(state.step + 1, groups), tuple(m for _, m in done)

  return step


def _group_step(
  state: GroupState, step: Array, rows: Rows, setting: Setting
) -> tuple[GroupState, dict[str, Array]]:
  group, layout, config = setting
  batch = gather(state, rows, group, layout)
  numbers = _numbers(group, step)
  limit = group.revival.dead_after
  dead = tuple(jnp.where(s > limit, s, 0) for s in state.since)
  static = (group, layout, config.precision)

  def one(params: Params, batch: Batch, numbers: Numbers, dead: Any):
    return jax.value_and_grad(loss, has_aux=True)(
      params, batch, numbers, dead, static
    )

  (_, seen), grads = each_member(one, state.params, batch, numbers, dead)
  rate = schedules.rate(step, group.optimiser, config.steps)
  rates = rate * jnp.asarray([m.learning_rate for m in group.members])
  params, moments = _descend(state, grads, rates, group)
  new = state._replace(
    params=params,
    moments=moments,
    since=_since(state.since, seen.frequency, batch.y.shape[1]),
    threshold=_threshold(state.threshold, seen.least, group),
    alarm=_alarm(state.alarm, seen, grads, step),
  )
  if group.revival.resample_every:
    new = resample(new, batch, seen, step, (group, layout))
  metrics = seen.terms | {
    "l0": seen.l0,
    "fvu": seen.fvu,
    "dead": _share_of_dead(new.since, limit),
    "learning_rate": rates,
    "alarm_step": new.alarm.step,
    "alarm_terms": new.alarm.terms,
  }
  return new, metrics


def each_member(one: Callable[..., Any], *arrays: Any) -> Any:
  """`one` for every member, in one compiled program.

  By `jax.vmap`; on a CPU one after the other, for there a member's share of the
  arrays stays nearer to the caches (see benchmarks/README.md) and temporaries
  are those of one member.

  Args:
    one: Of a member's own arrays.
    arrays: The same with an axis `members` in front.
  """
  if jax.default_backend() == "cpu":
    return jax.lax.map(lambda own: one(*own), arrays)
  return jax.vmap(one)(*arrays)


def gather(
  state: GroupState, rows: Rows, group: Group, layout: Layout
) -> Batch:
  """Each member's own rows, scaled, with an axis `members` in front."""

  def of(sites: Any, scale: Array, position: int) -> Array:
    stacked = jnp.stack([rows[s[position]] for s in sites])
    factor = scale[:, position][:, None, None]
    return stacked.astype(jnp.float32) * factor

  reads = [m.sites_in for m in group.members]
  writes = [m.writes for m in group.members]
  each = range(layout.sites)
  xs = tuple(of(reads, state.scale_in, i) for i in each)
  y = jnp.concatenate([of(writes, state.scale_out, i) for i in each], axis=2)
  return Batch(xs if layout.layered else (jnp.concatenate(xs, axis=2),), y)


def _numbers(group: Group, step: Array) -> Numbers:
  own = [
    group.sparsity.weight if m.weight is None else m.weight
    for m in group.members
  ]
  share = schedules.sparsity(step, group.sparsity)
  return Numbers(
    jnp.asarray([m.l0 for m in group.members], jnp.float32),
    share * jnp.asarray(own, jnp.float32),
  )


def _descend(
  state: GroupState, grads: Params, rates: Array, group: Group
) -> tuple[Params, Any]:
  """Projection, Adam, constraints."""
  options = group.optimiser
  if options.unit_norm:
    grads = project_gradients(grads, state.params)
  if options.clip_norm:
    grads = _clipped(grads, options.clip_norm)
  if options.clip_ratio:
    grads = _restrained(grads, state.moments, options)
  updates, moments = transformation(options).update(grads, state.moments)

  def moved(path: Any, p: Array, u: Array) -> Array:
    at_threshold = getattr(path[-1], "key", None) == "threshold"
    own = rates * options.threshold_rate if at_threshold else rates
    return p - _along(own, p) * u

  params = jax.tree_util.tree_map_with_path(moved, state.params, updates)
  return constrain(params, options.unit_norm), moments


def _clipped(grads: Params, most: float) -> Params:
  squares = [
    jnp.square(g).sum(axis=tuple(range(1, g.ndim)))
    for g in jax.tree.leaves(grads)
  ]
  norm = jnp.sqrt(functools.reduce(jnp.add, squares))
  factor = jnp.minimum(1, most / jnp.maximum(norm, 1e-12))
  return jax.tree.map(lambda g: g * _along(factor, g), grads)


def _restrained(grads: Params, moments: Any, options: Optimiser) -> Params:
  """Gradients of usual size, measured by each array's second moment."""
  count = moments.count
  seen = 1 - options.b2 ** count.astype(jnp.float32)

  def limited(g: Array, v: Array) -> Array:
    inner = tuple(range(1, g.ndim))
    usual = v.sum(axis=inner) / jnp.maximum(seen, 1e-9)
    squares = jnp.square(g).sum(axis=inner)
    ratio = usual / jnp.maximum(squares, jnp.finfo(jnp.float32).tiny)
    factor = jnp.minimum(1, options.clip_ratio * jnp.sqrt(ratio))
    known = (count > 0) & (usual > 0)
    return g * _along(jnp.where(known, factor, 1), g)

  return jax.tree.map(limited, grads, moments.nu)


def _along(values: Array, like: Array) -> Array:
  """One value a member, shaped to multiply arrays with members in front."""
  return values.reshape(-1, *(1,) * (like.ndim - 1))


def _since(
  since: tuple[Array, ...], frequency: tuple[Array, ...], rows: int
) -> tuple[Array, ...]:
  most = jnp.int32(1 << 30)
  return tuple(
    jnp.where(p > 0, 0, jnp.minimum(s + rows, most))
    for s, p in zip(since, frequency)
  )


def _share_of_dead(since: tuple[Array, ...], limit: int) -> Array:
  together = jnp.concatenate(since, axis=1)
  return (together > limit).mean(axis=1, dtype=jnp.float32)


def _threshold(mean: Array, least: Array, group: Group) -> Array:
  if group.architecture.activation != "batch_top_k":
    return mean
  slow = mean + (1 - _THRESHOLD_MEMORY) * (least - mean)
  found = jnp.where(mean < 0, least, slow)
  return jnp.where(jnp.isfinite(least), found, mean)


def _alarm(alarm: Alarm, seen: Seen, grads: Params, step: Array) -> Alarm:
  """Remembers the first step with a number that is not finite."""
  biases = [p["b_enc"] for p in grads["parts"]]
  sums = functools.reduce(jnp.add, [b.sum(axis=1) for b in biases])
  values = jnp.stack([*seen.terms.values(), sums], axis=1)
  bad = ~jnp.isfinite(values)
  first = (alarm.step < 0) & bad.any(axis=1)
  return Alarm(
    jnp.where(first, step, alarm.step),
    jnp.where(first[:, None], bad, alarm.terms),
  )
