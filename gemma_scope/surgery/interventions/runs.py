"""Changes by values of another run: patching, resampling, freezing.

A value is taken by the position it had in the other run, counted from the first
token of its sequence, so that it is the same with padding and with a cache.
Positions that the other run did not have stay as they are. Freezing a pattern
or a norm is patching `pattern` or a site's part `inverse_rms`.
"""

from collections.abc import Iterable, Mapping
import dataclasses
from typing import Any, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int
import numpy as np
from penzai import pz

from gemma_scope import axes
from gemma_scope.errors import SiteError
from gemma_scope.model.context import Context
from gemma_scope.model.placement import Places
from gemma_scope.sites import NORMED, Site, info_of
from gemma_scope.surgery.addresses import Address
from gemma_scope.surgery.interventions.constants import Numbers
from gemma_scope.surgery.interventions.protocol import (
  Change,
  Intervention,
  array_for,
)
from gemma_scope.surgery.interventions.where import where
from gemma_scope.surgery.positions import Choice

Run = Mapping[Site, pz.nx.NamedArray]


@pz.pytree_dataclass
class Patch(Change):
  """Takes the value from another run.

  Attributes:
    source: The other run's values with the axes of the site, a single row
      for all or one for each.
    lengths: [rows] tokens of each of its rows.
    key: Chooses a row at random for each row here; None for the same one.
  """

  source: Any
  lengths: Int[Array, " rows"] | None
  key: jax.Array | None

  def __call__(
    self, value: pz.nx.NamedArray, name: str, context: Context
  ) -> pz.nx.NamedArray:
    """The other run's value at every position it had."""
    names = info_of(name).axes
    assert context.placement is not None, "patching needs a placement"
    here = context.placement.places
    source, lengths = self._rows(value.named_shape[axes.BATCH], names)
    if axes.KV_SEQ in names:
      keys = here if context.past is None else context.past.places.then(here)
      source = _by_key(source, names, here, keys)
    taken = _by_position(source, names.index(axes.SEQ), here.positions)
    there = (here.positions < lengths[:, None]) & (here.segment_ids != 0)
    covered = pz.nx.wrap(there, axes.BATCH, axes.SEQ)
    choose = pz.nx.nmap(jnp.where)
    return choose(covered, pz.nx.wrap(taken, *names), value)

  def _rows(
    self, count: int, names: tuple[str, ...]
  ) -> tuple[jax.Array, jax.Array]:
    """The source for each of `count` rows, and how long it is."""
    source = self.source.unwrap(*names)
    lengths = self.lengths
    if lengths is None:
      size = source.shape[names.index(axes.SEQ)]
      lengths = jnp.full(source.shape[0], size)
    if self.key is not None:
      rows = jax.random.randint(self.key, (count,), 0, source.shape[0])
      return source[rows], lengths[rows]
    if source.shape[0] not in (1, count):
      raise SiteError(
        "The other run has another number of rows.",
        received=f"{source.shape[0]} rows there, {count} here",
        instead="one row for all, or one for each",
      )
    rows = jnp.zeros(count, int) if source.shape[0] == 1 else jnp.arange(count)
    return source[rows], lengths[rows]

  def fit(self, site: Site, sizes: Mapping[str, int]) -> Self:
    """Chooses the site's array and checks it."""
    given = self.source
    if isinstance(given, Mapping):
      given = array_for(given, site)
    named = isinstance(given, pz.nx.NamedArray | pz.nx.NamedArrayView)
    shape = dict(given.named_shape) if named else {}
    wrong = any(shape.get(name) != size for name, size in sizes.items())
    if not named or set(shape) != set(site.info.axes) or wrong:
      raise SiteError(
        f"This is no run's value of {site}.",
        received=f"named axes {shape}" if named else f"{type(given).__name__}",
        instead=f"a capture of it, axes {', '.join(site.info.axes)}",
      )
    source = pz.nx.wrap(given.unwrap(*site.info.axes), *site.info.axes)
    return dataclasses.replace(self, source=source.astype(jnp.float32))


def patch(
  at: Address,
  run: Run,
  *,
  heads: Numbers = None,
  units: Numbers = None,
  positions: Choice | None = None,
) -> Intervention:
  """Takes the values at some sites from another run, position by position.

  Args:
    at: Sites or latents.
    run: Site -> value in the other run, such as a `capture` of it; a single row
      for all rows here, or one for each.
    heads: Heads it acts on.
    units: Entries of the last axis it acts on.
    positions: Tokens it acts on; by default all that the other run had.
  """
  change = Patch(run, lengths_of(run), None)
  return Intervention(at, change, where(heads, units, positions))


def resample(
  at: Address,
  run: Run,
  key: jax.Array,
  *,
  heads: Numbers = None,
  units: Numbers = None,
  positions: Choice | None = None,
) -> Intervention:
  """Resample ablation: values of a row of another run, drawn for each row.

  Args:
    at: Sites or latents.
    run: Site -> values of other prompts, such as a `capture` of them.
    key: Random key; the same key draws the same rows.
    heads: Heads it acts on.
    units: Entries of the last axis it acts on.
    positions: Tokens it acts on; by default all that the drawn row had.
  """
  change = Patch(run, lengths_of(run), key)
  return Intervention(at, change, where(heads, units, positions))


def freeze_pattern(
  at: Address, run: Run, *, heads: Numbers = None
) -> Intervention:
  """Keeps attention as it was in another run.

  Args:
    at: Pattern sites, such as "pattern[:]".
    run: A capture of them.
    heads: Heads it acts on.
  """
  return patch(at, run, heads=heads)


def frozen_norms(layers: str = "[:]") -> tuple[str, ...]:
  """The addresses of the norms' factors 1 / rms: capture them, then freeze.

  Args:
    layers: Which layers, as in an address: "[3]", "[:]".
  """
  inside = [name for name in NORMED if info_of(name).per_layer]
  return tuple(f"{name}{layers}.inverse_rms" for name in inside)


def freeze_norms(at: Iterable[str | Site] | str, run: Run) -> Intervention:
  """Keeps the scale of norms as it was in another run.

  Args:
    at: Addresses of the factors, such as "mlp_in[3].inverse_rms", or
      `frozen_norms()` for all of them.
    run: A capture of them.
  """
  return patch(at, run)


def lengths_of(run: Any) -> jax.Array | None:
  """[rows] tokens of each row of a run that knows its tokens."""
  lengths = getattr(getattr(run, "tokens", None), "lengths", None)
  return None if lengths is None else jnp.asarray(np.asarray(lengths))


def _by_position(
  source: jax.Array, axis: int, positions: Int[Array, "batch seq"]
) -> jax.Array:
  """`source` at the positions of each row, along `axis`."""
  last = source.shape[axis] - 1
  shape = [1] * source.ndim
  shape[0], shape[axis] = positions.shape
  index = jnp.clip(positions, 0, last).reshape(shape)
  return jnp.take_along_axis(source, index, axis=axis)


def _by_key(
  source: jax.Array, names: tuple[str, ...], here: Places, keys: Places
) -> jax.Array:
  """A pattern over the keys of this pass; no weight on other sequences'.

  Every column of `keys` gets the weight of the position that stands there.
  Slots that are empty or of another sequence get none, for all queries alike:
  rows hold one sequence where a cache is used.
  """
  taken = _by_position(source, names.index(axes.KV_SEQ), keys.positions)
  full = keys.positions < source.shape[names.index(axes.KV_SEQ)]
  live = full & (keys.segment_ids == here.segment_ids[:, :1])
  return taken * live[:, None, None, :]
