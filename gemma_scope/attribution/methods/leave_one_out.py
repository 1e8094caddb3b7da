"""Leave-one-out: how much the target falls where one token is not there.

    S(t) = f(x) - f(x without token t)

"delete" takes the token out of the prompt: what follows moves up one position,
so the model reads another text. "mask" leaves every token at its position and
hides this one from all others' attention. Without the target's own token the
target is read from the token before it. A token's score is shared equally by
the elements of its embedding; nothing is promised about the sum. Source: Li,
Monroe and Jurafsky 2016, "Understanding Neural Networks through Representation
Erasure", eq. 1.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np
from penzai import pz

from gemma_scope import axes
from gemma_scope.attribution import gradients
from gemma_scope.attribution.evaluate import evaluate
from gemma_scope.attribution.methods.occlusion import shared
from gemma_scope.attribution.methods.protocol import (
  Answer,
  Method,
  Options,
  Question,
  nothing_promised,
)
from gemma_scope.attribution.objectives import ResolvedTarget
from gemma_scope.attribution.objectives.protocol import Seen
from gemma_scope.attribution.rows import Rows
from gemma_scope.errors import ConfigError, SiteError, TextError
from gemma_scope.model import gemma
from gemma_scope.sites import Site
from gemma_scope.surgery.select import tap

WAYS = ("delete", "mask")
_EMBED = Site("embed")
_STREAM = (axes.BATCH, axes.SEQ, axes.EMBEDDING)
_HIDDEN = -1  # a sequence of its own: nothing else sees it


@dataclasses.dataclass(frozen=True)
class LeaveOneOutOptions(Options):
  """Options of leave-one-out.

  Attributes:
    how: "delete" (what follows moves up) or "mask" (hidden from attention).
  """

  how: str = "delete"


def _leave_one_out(question: Question) -> Answer:
  q, o = question, question.options
  _check(q)
  value = np.asarray(_target(q.model, q.rows, q.target))
  lengths = np.asarray(q.rows.segment_ids != 0).sum(axis=1)
  total = int(lengths.max())
  count = gradients.steps_at_once(q.rows, total)
  found = []
  for first in range(0, total, count):
    tokens = np.arange(first, first + count, dtype=np.int32)
    run = {"delete": target_deleted, "mask": target_masked}[o.how]
    found.append(run(q.model, q.rows, q.target, tokens))
  without = np.concatenate(found)[:total]
  falls = np.zeros(q.rows.ids.shape, np.float32)
  falls[:, :total] = (value[None] - without).T
  falls *= np.arange(falls.shape[1]) <= np.asarray(q.rows.columns)[:, None]
  width = q.model.config.d_model
  like = pz.nx.wrap(
    np.broadcast_to(np.float32(0), (*falls.shape, width)), *_STREAM
  )
  values = {_EMBED: shared(falls, like, q.rows)}
  return Answer(value, values, nothing_promised(value, q.sites))


@jax.jit
def _target(
  model: gemma.Gemma, rows: Rows, target: ResolvedTarget
) -> Float[Array, " batch"]:
  return evaluate(model, rows, target, {})[0]


@jax.jit
def target_deleted(
  model: gemma.Gemma,
  rows: Rows,
  target: ResolvedTarget,
  tokens: Int[Array, " tokens"],
) -> Float[Array, "tokens batch"]:
  """The target of each prompt without the token in some columns."""
  many, targets = gradients.repeated(rows, target, tokens.shape[0])
  out = jnp.repeat(tokens, rows.ids.shape[0])[:, None]
  index = jnp.arange(rows.ids.shape[1])[None, :]
  kept = index + (index >= out)
  last = index.shape[1] - 1
  moved = dataclasses.replace(
    many,
    ids=_picked(many.ids, kept, last),
    segment_ids=_picked(many.segment_ids, kept, last),
    columns=many.columns - 1,  # no matter what is left out behind them
  )
  found, _ = evaluate(model, moved, targets, {})
  return found.reshape(tokens.shape[0], -1)


def _picked(
  values: Int[Array, "batch seq"], columns: Int[Array, "batch seq"], last: int
) -> Int[Array, "batch seq"]:
  """Values at some columns, 0 past the last one."""
  found = jnp.take_along_axis(values, jnp.minimum(columns, last), axis=1)
  return jnp.where(columns > last, 0, found)


@jax.jit
def target_masked(
  model: gemma.Gemma,
  rows: Rows,
  target: ResolvedTarget,
  tokens: Int[Array, " tokens"],
) -> Float[Array, "tokens batch"]:
  """The target of each prompt where no token sees that in some columns."""
  many, targets = gradients.repeated(rows, target, tokens.shape[0])
  out = jnp.repeat(tokens, rows.ids.shape[0])[:, None]
  index = jnp.arange(rows.ids.shape[1])[None, :]
  segments = jnp.where(index == out, _HIDDEN, many.segment_ids)
  columns = many.columns - (out[:, 0] == many.columns)
  found = _evaluate_seen(model, many, targets, segments, columns)
  return found.reshape(tokens.shape[0], -1)


def _evaluate_seen(
  model: gemma.Gemma,
  rows: Rows,
  target: ResolvedTarget,
  segments: Int[Array, "batch seq"],
  columns: Int[Array, " batch"],
) -> Float[Array, " batch"]:
  """The target where tokens see those of their segment, positions kept."""
  tapped = tap(model, target.reads)
  placement = gemma.place(tapped, rows.ids, rows.segment_ids)
  seen_places = dataclasses.replace(placement.places, segment_ids=segments)
  placement = dataclasses.replace(placement, places=seen_places)
  embedded, taps = gemma.embed(tapped, rows.ids, placement)
  residual, inner = gemma.run_layers(tapped, embedded, placement)
  normed, outer = gemma.apply_final_norm(tapped, residual, placement)
  chosen = normed.unwrap(*_STREAM)[jnp.arange(columns.shape[0]), columns]
  everything = taps | inner | outer
  table = model.table.data_array
  return target.value(Seen(chosen, table, columns, everything))


def _check(question: Question) -> None:
  q = question
  if q.options.how not in WAYS:
    raise ConfigError(
      "There is no such way to leave a token out.",
      received=f"how={q.options.how!r}",
      instead=" or ".join(f"how={name!r}" for name in WAYS),
    )
  if q.sites != (_EMBED,):
    raise SiteError(
      "Leaving a token out concerns tokens, not what a site makes of them.",
      received=", ".join(map(str, q.sites)),
      instead='at=["embed"], or method="occlusion" at other sites',
    )
  if int(q.rows.columns.min()) == 0:
    raise TextError(
      "A target at the first token has nothing before it to be read from.",
      received="a target at position 0",
      instead="a later position, or method='occlusion'",
    )


LEAVE_ONE_OUT = Method(_leave_one_out, LeaveOneOutOptions)
