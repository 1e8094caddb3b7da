"""What is minimised, term by term, for one member on one batch.

    mse        mean over rows and prefixes of |y - y_k|^2, summed over sites
    sparsity   weight * (2 / L0*) (L0 - L0*)^2, weight * mean sum f |w|, or
               weight * mean sum tanh(c f |w|)
    frequency  weight * sum over latents of max(0, p - limit)^2 / limit
    gate       |y - relu(gate) @ stop(w_dec) - stop(b_dec)|^2 (gated alone)
    aux        weight * |e - e'|^2, e = stop(y - y_K), e' from dead latents

Sources: Gemma Scope 2, technical paper (quadratic L0, frequency); Bussmann et
al. 2025 (prefixes); Bricken et al. 2023 (L1); Anthropic, "Circuits Updates -
January 2025" (tanh, decoder norms); Lindsey et al. 2024 (sum of decoder norms
over sites); Rajamanoharan et al. 2024, "Improving Dictionary Learning with
Gated SAEs", eq. 8 (gate); Gao et al. 2024 (aux). Gradients of L0 and p reach
thresholds alone. With `Group.row_limit` squared errors of far rows weigh less.
The mean over prefixes keeps `weight`'s meaning whatever
their number.
"""

from collections.abc import Sequence
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gemma_scope.training import kept
from gemma_scope.training.auxiliary import aux_loss
from gemma_scope.training.config import Group
from gemma_scope.training.encoding import Encoded, encode, split
from gemma_scope.training.parameters import Layout, Params, decoder_norms
from gemma_scope.training.products import matmul
from gemma_scope.training.reconstruction import by_prefix

Scalar = Float[Array, ""]


class Batch(NamedTuple):
  """One member's rows, scaled.

  Attributes:
    xs: What each part reads, [rows, d].
    y: What is rebuilt, all sites side by side, [rows, written].
  """

  xs: tuple[Array, ...]
  y: Array


class Numbers(NamedTuple):
  """One member's own numbers.

  Attributes:
    l0: Target, or k.
    weight: Of the sparsity penalty, warm-up included.
  """

  l0: Scalar
  weight: Scalar


class Seen(NamedTuple):
  """What a batch showed besides its loss.

  Attributes:
    terms: Name -> value of each term of the loss.
    l0: Mean number of active latents.
    fvu: Fraction of the batch's variance unexplained.
    frequency: Share of rows in which each latent of each part is active.
    least: Smallest active latent.
    missed: y - y_K, without gradient.
  """

  terms: dict[str, Scalar]
  l0: Scalar
  fvu: Scalar
  frequency: tuple[Array, ...]
  least: Scalar
  missed: Array


def term_names(group: Group) -> tuple[str, ...]:
  """The terms of a group's loss, in order."""
  names = ["mse"]
  if group.sparsity.penalty != "none":
    names.append("sparsity")
  if group.sparsity.frequency_weight:
    names.append("frequency")
  if group.architecture.activation == "gated":
    names.append("gate")
  if group.revival.aux_k:
    names.append("aux")
  return tuple(names)


def loss(
  params: Params,
  batch: Batch,
  numbers: Numbers,
  dead: tuple[Array, ...],
  setting: tuple[Group, Layout, str],
) -> tuple[Scalar, Seen]:
  """The sum of the terms, and what was seen.

  Args:
    params: One member's.
    batch: Its rows.
    numbers: Its own numbers.
    dead: For each part, rows since each latent fired, where it is dead; else
      0.
    setting: Group, layout and precision.
  """
  group, layout, precision = setting
  if kept.serves(setting, batch.y.shape[0]):
    return _loss_of_kept(params, batch, numbers, dead, setting)
  parts = params["parts"]
  encoded = encode(parts, batch.xs, group, numbers.l0, precision)
  ys = rebuild(params, [e.active.latents for e in encoded], batch, setting)
  missed = batch.y[None] - ys
  weights = row_weights(batch.y, group, layout)
  terms = {"mse": _mean(missed, weights)}
  per_row = sum_of([e.active.per_row for e in encoded])
  rest = {
    "sparsity": lambda: _sparsity(encoded, per_row, params, numbers, setting),
    "frequency": lambda: _frequency(encoded, group),
    "gate": lambda: _gate(encoded, params, batch, weights, setting),
    "aux": lambda: aux_loss(
      *(params, lambda p, i: encoded[p].z[:, i]),
      *((missed[-1], weights), dead, setting),
    ),
  }
  for name in term_names(group)[1:]:
    terms[name] = rest[name]()
  seen = _seen(terms, encoded, per_row, missed[-1], batch)
  return sum_of(list(terms.values())), jax.lax.stop_gradient(seen)


def row_weights(
  y: Float[Array, "rows written"], group: Group, layout: Layout
) -> Float[Array, " rows"] | None:
  """What rows count in reconstruction losses; None for one each.

  Args:
    y: What is rebuilt.
    group: For `row_limit`.
    layout: For the number of sites, each with a scale of its own.
  """
  if not group.row_limit:
    return None
  squares = jnp.square(y - y.mean(axis=0, keepdims=True)).sum(axis=1)
  most = group.row_limit**2 * layout.sites
  return jnp.minimum(1, most / jnp.maximum(squares, most))


def _mean(
  missed: Float[Array, "prefixes rows written"],
  weights: Float[Array, " rows"] | None,
) -> Scalar:
  """The mean over prefixes and rows of the weighted squared error."""
  squares = jnp.square(missed).sum(axis=2)
  if weights is not None:
    squares = squares * weights[None, :]
  return squares.mean()


def _loss_of_kept(
  params: Params,
  batch: Batch,
  numbers: Numbers,
  dead: tuple[Array, ...],
  setting: tuple[Group, Layout, str],
) -> tuple[Scalar, Seen]:
  """The same for TopK and BatchTopK, from the latents that are kept alone."""
  group, layout, precision = setting
  part = params["parts"][0]
  x, shift = split(part, batch.xs[0])
  bias = shift + part["b_enc"]
  made = kept.autoencode(
    *(x, part["w_enc"], bias, part["w_dec"], numbers.l0.astype(jnp.int32)),
    max(int(m.l0) for m in group.members),
    group.architecture.activation == "batch_top_k",
  )
  y = made.y + params["b_dec"][None, :]
  if "skip" in part:
    y = y + matmul(batch.xs[0], part["skip"], precision)
  missed = batch.y - y
  weights = row_weights(batch.y, group, layout)
  terms = {"mse": _mean(missed[None], weights)}

  def z_of(_: int, latents: Array) -> Array:
    z = matmul(x, part["w_enc"][:, latents], precision)
    return z + bias[latents][None, :]

  if group.revival.aux_k:
    given = (missed, weights), dead, setting
    terms["aux"] = aux_loss(params, z_of, *given)
  seen = Seen(
    terms=terms,
    l0=made.per_row.mean(),
    fvu=_fvu(missed, batch),
    frequency=(made.frequency,),
    least=made.least,
    missed=missed,
  )
  return sum_of(list(terms.values())), jax.lax.stop_gradient(seen)


def rebuild(
  params: Params,
  latents: Sequence[Array],
  batch: Batch,
  setting: tuple[Group, Layout, str],
) -> Float[Array, "prefixes rows written"]:
  """What every prefix rebuilds, biases and skips included."""
  group, layout, precision = setting
  sizes = group.architecture.sizes
  total = params["b_dec"][None, None, :]
  for p, (part, f) in enumerate(zip(params["parts"], latents)):
    y = by_prefix(f, part["w_dec"], sizes, precision)
    total = total + _placed(y, layout.offset(p))
    if "skip" in part:
      beside = matmul(batch.xs[p], part["skip"], precision)[None]
      total = total + _placed(
        beside, layout.offset(p), layout.written - layout.offset(p + 1)
      )
  return total


def _placed(y: Array, before: int, after: int = 0) -> Array:
  if not (before or after):
    return y
  return jnp.pad(y, ((0, 0), (0, 0), (before, after)))


def sum_of(values: Sequence[Array]) -> Array:
  """The sum, in order."""
  total = values[0]
  for value in values[1:]:
    total = total + value
  return total


def _sparsity(
  encoded: Sequence[Encoded],
  per_row: Array,
  params: Params,
  numbers: Numbers,
  setting: tuple[Group, Layout, str],
) -> Scalar:
  group, layout, _ = setting
  options = group.sparsity
  if options.penalty == "l0":
    l0 = per_row.mean() if options.l0_of == "batch" else per_row
    squares = jnp.square(l0 - numbers.l0).mean()
    return numbers.weight * (2 / numbers.l0) * squares
  sums = []
  for e, part in zip(encoded, params["parts"]):
    gated = group.architecture.activation == "gated"
    f = jax.nn.relu(e.z) if gated else e.active.latents
    if layout.written > layout.d_out or not group.optimiser.unit_norm:
      f = f * decoder_norms(part, layout.d_out)[None, :]
    if options.penalty == "tanh":
      f = jnp.tanh(options.tanh_scale * f)
    sums.append(f.sum(axis=1).mean())
  return numbers.weight * sum_of(sums)


def _frequency(encoded: Sequence[Encoded], group: Group) -> Scalar:
  limit = group.sparsity.frequency_limit
  over = [jnp.maximum(e.active.frequency - limit, 0) for e in encoded]
  squares = sum_of([jnp.square(o).sum() for o in over])
  return group.sparsity.frequency_weight * squares / limit


def _gate(
  encoded: Sequence[Encoded],
  params: Params,
  batch: Batch,
  weights: Float[Array, " rows"] | None,
  setting: tuple[Group, Layout, str],
) -> Scalar:
  frozen = jax.lax.stop_gradient(params)
  gates = [jax.nn.relu(e.z) for e in encoded]
  whole = _without_prefixes(setting)
  y = rebuild(frozen, gates, batch, whole)
  return _mean(batch.y[None] - y, weights)


def _without_prefixes(
  setting: tuple[Group, Layout, str],
) -> tuple[Group, Layout, str]:
  group, layout, precision = setting
  architecture = dataclasses.replace(group.architecture, prefixes=())
  return (
    dataclasses.replace(group, architecture=architecture),
    layout,
    precision,
  )


def _seen(
  terms: dict[str, Scalar],
  encoded: Sequence[Encoded],
  per_row: Array,
  missed: Array,
  batch: Batch,
) -> Seen:
  return Seen(
    terms=terms,
    l0=per_row.mean(),
    fvu=_fvu(missed, batch),
    frequency=tuple(e.active.frequency for e in encoded),
    least=_least(encoded),
    missed=missed,
  )


def _fvu(missed: Array, batch: Batch) -> Scalar:
  y = batch.y - batch.y.mean(axis=0, keepdims=True)
  tiny = jnp.finfo(jnp.float32).tiny
  return jnp.square(missed).sum() / jnp.maximum(jnp.square(y).sum(), tiny)


def _least(encoded: Sequence[Encoded]) -> Scalar:
  least = [
    jnp.where(e.active.latents > 0, e.active.latents, jnp.inf).min()
    for e in encoded
  ]
  return jnp.stack(least).min()
