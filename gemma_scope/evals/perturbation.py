"""Runs of prompts in which some tokens are taken away, many at a time.

A run is a prompt and, for each token, the probability that it is kept: 1, 0, or
between them for soft perturbation. What is taken away is replaced, in the
embedding, by something that says nothing about the token:

    mean      the mean embedding of the prompt's own tokens
    pad       the embedding of the padding token
    zero      zeros; far from every text (see `attribution.baselines`)
    resample  the embedding of a token drawn from the other prompts
    delete    nothing: the token is cut out and what follows moves up

Between 0 and 1 each *element* of the embedding is kept with that probability,
drawn by itself (Zhao and Aletras 2023); under `delete`, each token. Equal runs
are computed once, and all of them go through one compiled program in chunks of
a fixed shape. BOS is never touched.
"""

from collections.abc import Iterator
import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np
from penzai import pz

from gemma_scope import axes
from gemma_scope.attribution.evaluate import evaluate
from gemma_scope.attribution.objectives import ResolvedTarget
from gemma_scope.attribution.rows import Rows
from gemma_scope.errors import ConfigError
from gemma_scope.evals.groups import Group
from gemma_scope.model import gemma
from gemma_scope.model.placement import placement_of, places_of
from gemma_scope.sites import Site
from gemma_scope.surgery.select import replace

KINDS = ("mean", "pad", "zero", "resample", "delete")
CHUNK_TOKENS = 1024  # tokens of all the runs that go side by side

_EMBED = Site("embed")


@dataclasses.dataclass(frozen=True)
class Perturbation:
  """How tokens are taken away.

  Attributes:
    kind: One of `KINDS`.
    seed: Seed of the draws of `resample` and of soft perturbation.
  """

  kind: str = "mean"
  seed: int = 0

  def __post_init__(self) -> None:
    if self.kind not in KINDS:
      raise ConfigError(
        "There is no such way to take tokens away.",
        received=f"kind={self.kind!r}",
        instead=f"one of {', '.join(KINDS)}",
      )


@dataclasses.dataclass(frozen=True)
class Runs:
  """Perturbed runs of the prompts of a group.

  Attributes:
    keep: [prompts, runs, width] float32 probability that a token is kept; only
      candidates are ever taken away.
    draws: [prompts, runs] which draw each run is; runs of equal draw and keep
      are the same run.
  """

  keep: np.ndarray
  draws: np.ndarray

  @staticmethod
  def hard(keep: np.ndarray) -> "Runs":
    """Runs that keep or take away whole tokens: [prompts, runs, width] bool."""
    return Runs(keep.astype(np.float32), np.zeros(keep.shape[:2], np.int32))

  @staticmethod
  def join(parts: "list[Runs]") -> "Runs":
    """The runs of all parts, one after the other."""
    return Runs(
      np.concatenate([part.keep for part in parts], axis=1),
      np.concatenate([part.draws for part in parts], axis=1),
    )


def run_values(
  model: gemma.Gemma,
  group: Group,
  runs: Runs,
  how: Perturbation,
  *,
  chunk_tokens: int = CHUNK_TOKENS,
) -> np.ndarray:
  """The target's value in every run.

  Args:
    model: The model.
    group: The prompts.
    runs: What is kept of each.
    how: How the rest is taken away.
    chunk_tokens: Tokens that run side by side: more is faster up to a point,
      and needs more memory.

  Returns:
    [prompts, runs] float32.

  Raises:
    ConfigError: If `resample` has no other prompt to draw from.
  """
  keep = np.where(group.candidates[:, None, :], runs.keep, 1.0)
  keep = keep.astype(np.float32)
  prompts, count, width = keep.shape
  owner = np.repeat(np.arange(prompts), count)
  flat = keep.reshape(-1, width)
  key = np.concatenate(
    [
      owner[:, None].astype(np.float32),
      runs.draws.reshape(-1, 1).astype(np.float32),
      flat,
    ],
    axis=1,
  )
  unique, inverse = np.unique(key, axis=0, return_inverse=True)
  prompt, draw = unique[:, 0].astype(int), unique[:, 1].astype(np.int32)
  values = np.empty(len(unique), np.float32)
  at_once = max(1, chunk_tokens // width)
  others = other_tokens(group, how)
  for rows in _chunks(len(unique), at_once):
    args = _chunk(
      group, others, how, prompt[rows], draw[rows], unique[rows, 2:]
    )
    kept = np.asarray(kept_values(model, *args))
    values[rows] = kept  # rows that fill the last chunk up repeat its first
  return values[inverse.reshape(-1)].reshape(prompts, count)


def other_tokens(group: Group, how: Perturbation) -> np.ndarray:
  """[prompts, width] the ids that stand in for tokens under `resample`.

  Padding (0) for the other kinds. Each token's stand-in is drawn once, from the
  candidates of the group's other prompts, and is the same in every run.

  Raises:
    ConfigError: If the group has a single prompt.
  """
  if how.kind != "resample":
    return np.zeros_like(group.ids)
  if group.size < 2:
    raise ConfigError(
      "There is no other text to draw tokens from.",
      received="resample with one prompt of its width",
      instead='several prompts of like length, or kind="mean"',
    )
  rng = np.random.default_rng(how.seed)
  drawn = np.zeros_like(group.ids)
  for p in range(group.size):
    others = np.arange(group.size) != p
    pool = group.ids[others][group.candidates[others]]
    drawn[p] = rng.choice(pool, size=group.width)
  return drawn


def _chunks(count: int, size: int) -> Iterator[np.ndarray]:
  """Indices in chunks of one size, the last filled up with its first."""
  for start in range(0, count, size):
    rows = np.arange(start, start + size)
    yield np.where(rows < count, rows, start)


def _chunk(
  group: Group,
  others: np.ndarray,
  how: Perturbation,
  prompt: np.ndarray,
  draw: np.ndarray,
  keep: np.ndarray,
) -> tuple[Rows, ResolvedTarget, tuple[jax.Array, ...]]:
  """The arguments of `kept_values` for some runs."""
  some = group.take(prompt)
  ids, segments, columns = some.ids, some.segment_ids, some.columns
  if how.kind == "delete":
    keep = _whole_tokens(keep, draw, some.index, how.seed)
    ids, segments, columns = cut_out(some, keep > 0)
    keep = np.ones_like(keep)
  rows = Rows(
    jnp.asarray(ids), jnp.asarray(segments), jnp.asarray(columns, jnp.int32)
  )
  weights = (how.kind == "mean", how.kind in ("pad", "resample"))
  keys = np.stack([some.index, draw], axis=1).astype(np.uint32)
  return (
    rows,
    some.target,
    (
      jnp.asarray(others[prompt]),
      jnp.asarray(some.candidates),
      jnp.asarray(weights, jnp.float32),
      jnp.asarray(keep),
      jnp.asarray(keys),
      jnp.asarray(how.seed, jnp.uint32),
    ),
  )


def _whole_tokens(
  keep: np.ndarray, draw: np.ndarray, index: np.ndarray, seed: int
) -> np.ndarray:
  """Draws whole tokens where `keep` lies between 0 and 1."""
  if np.isin(keep, (0.0, 1.0)).all():
    return keep
  drawn = [
    np.random.default_rng((seed, int(p), int(d))).random(keep.shape[1])
    for p, d in zip(index, draw)
  ]
  return (np.stack(drawn) < keep).astype(np.float32)


def cut_out(
  group: Group, keep: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Ids, segments and target columns of prompts without some tokens.

  The target is read at the last token that is left up to its column.

  Args:
    group: The prompts.
    keep: [prompts, width] bool.
  """
  kept = keep & (group.segment_ids != 0)
  order = np.argsort(~kept, axis=1, kind="stable")
  there = np.take_along_axis(kept, order, axis=1)
  ids = np.where(there, np.take_along_axis(group.ids, order, axis=1), 0)
  before = np.arange(group.width)[None, :] <= group.columns[:, None]
  columns = (kept & before).sum(axis=1) - 1
  return ids, there.astype(np.int32), np.maximum(columns, 0)


@jax.jit
def kept_values(
  model: gemma.Gemma,
  rows: Rows,
  target: ResolvedTarget,
  taken: tuple[
    Int[Array, "batch seq"],
    Array,
    Float[Array, " 2"],
    Float[Array, "batch seq"],
    Array,
    Array,
  ],
) -> Float[Array, " batch"]:
  """The target of each run, in one forward pass.

  Args:
    model: The model.
    rows: The prompt of each run.
    target: The target of each run.
    taken: Ids that stand in, candidates, the weights of the mean and of the
      stand-ins in what replaces a token, the probability that a token is kept,
      (prompt, draw) of each run, and the seed.
  """
  others, candidates, weights, keep, keys, seed = taken
  placement = placement_of(places_of(rows.segment_ids), model.config)
  value, instead = (
    gemma.embed(model, ids, placement)[0].unwrap(
      axes.BATCH, axes.SEQ, axes.EMBEDDING
    )
    for ids in (rows.ids, others)
  )
  inside = candidates[:, :, None].astype(value.dtype)
  count = jnp.maximum(inside.sum(axis=1, keepdims=True), 1)
  mean = (value * inside).sum(axis=1, keepdims=True) / count
  mean_weight, other_weight = weights.astype(value.dtype)
  filled = mean_weight * mean + other_weight * instead
  stays = _draw(seed, keys, value.shape[1:]) < keep[:, :, None]
  mixed = jnp.where(stays, value, filled)
  mixed = pz.nx.wrap(mixed, axes.BATCH, axes.SEQ, axes.EMBEDDING)
  changed = replace(model, [_EMBED])
  return evaluate(changed, rows, target, {_EMBED: mixed})[0]


@functools.partial(jax.jit, static_argnums=2)
def _draw(
  seed: jax.Array, keys: jax.Array, shape: tuple[int, ...]
) -> jax.Array:
  """[runs, *shape] uniform numbers in [0, 1), each run's by its own key."""

  def one(pair: jax.Array) -> jax.Array:
    key = jax.random.fold_in(jax.random.key(seed), pair[0])
    return jax.random.uniform(jax.random.fold_in(key, pair[1]), shape)

  return jax.vmap(one)(keys)
