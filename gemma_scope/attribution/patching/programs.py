"""The compiled programs of a sweep: each takes some runs through one layer.

Weights are arguments, so one program serves all layers of a kind. The patched
runs stand in one array that is written in place; a program works on a chunk of
consecutive rows of it.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
from penzai import pz

from gemma_scope.attribution.objectives.protocol import ResolvedTarget, Seen
from gemma_scope.attribution.patching.cells import Cells
from gemma_scope.attribution.patching.layers import ByName, Layer
from gemma_scope.attribution.patching.leaders import (
  STREAM,
  Leaders,
  at_columns,
  in_front,
  take_rows,
)
from gemma_scope.attribution.patching.put import Put, key
from gemma_scope.model import gemma
from gemma_scope.sites import Site

Stream = Float[Array, "runs seq embedding"]
Reads = dict[Site, Array]  # [rows, ...], read at each row's column


@functools.partial(jax.jit, static_argnames="names")
def lead(
  layer: Layer, leaders: Leaders, names: tuple[str, ...]
) -> tuple[Leaders, ByName, dict[str, Array]]:
  """Source and base runs through one layer.

  Args:
    layer: The layer, with taps.
    leaders: The runs.
    names: The site names of the sweep.

  Returns:
    The runs behind the layer, the values of all rows at the sites of the
    sweep, and what the target reads.
  """
  stream, seen = layer.run(leaders.stream, leaders.placement, {})
  read = {n: at_columns(seen[n], leaders.columns, n) for n in layer.read}
  after = dataclasses.replace(leaders, stream=stream)
  return after, {name: seen[name] for name in names if name in seen}, read


@functools.partial(
  jax.jit, static_argnames=("rows", "names"), donate_argnames="stream"
)
def enter(
  layer: Layer,
  stream: Stream,
  cells: Cells,
  leaders: Leaders,
  sources: ByName,
  first: Int[Array, ""],
  rows: int,
  names: tuple[str, ...],
) -> tuple[Stream, dict[str, Array]]:
  """Runs that are patched in this layer through it.

  They start from the base run's residual stream.

  Args:
    layer: The layer, with a patch at every site of the sweep.
    stream: The residual streams of all patched runs; written in place.
    cells: Their cells.
    leaders: Source and base runs as they enter the layer.
    sources: Site name -> values of the leaders there.
    first: The first run.
    rows: How many runs.
    names: The site names of the sweep.

  Returns:
    All residual streams, and what the target reads of these rows.
  """
  some = take_run(cells, first, rows)
  puts = {
    name: Put(
      take_rows(sources[name], some.pair),
      some.site == number,
      some.position,
      some.head,
    )
    for number, name in enumerate(names)
    if name in sources
  }
  base = leaders.base(some.pair)
  x = base.stream
  if "embed" in puts:
    x = puts.pop("embed").into(x)
  inputs = {key(name): put for name, put in puts.items()}
  x, seen = layer.run(x, base.placement, inputs)
  read = {n: at_columns(seen[n], base.columns, n) for n in layer.read}
  return written(stream, x.unwrap(*STREAM), first), read


@functools.partial(jax.jit, static_argnames="rows", donate_argnames="stream")
def advance(
  layer: Layer,
  stream: Stream,
  cells: Cells,
  leaders: Leaders,
  first: Int[Array, ""],
  rows: int,
) -> tuple[Stream, dict[str, Array]]:
  """Runs that were patched in an earlier layer through this one.

  Args:
    layer: The layer.
    stream: The residual streams of all patched runs; written in place.
    cells: Their cells.
    leaders: Source and base runs; only where their tokens stand is used.
    first: The first run.
    rows: How many runs.

  Returns:
    All residual streams, and what the target reads of these rows.
  """
  base = leaders.base(take_run(cells, first, rows).pair)
  x = jax.lax.dynamic_slice_in_dim(stream, first, rows)
  x, seen = layer.run(pz.nx.wrap(x, *STREAM), base.placement, {})
  read = {n: at_columns(seen[n], base.columns, n) for n in layer.read}
  return written(stream, x.unwrap(*STREAM), first), read


@jax.jit
def finish_leaders(
  model: gemma.Gemma, leaders: Leaders, target: ResolvedTarget, reads: Reads
) -> Float[Array, " rows"]:
  """The target of the source runs, then of the base runs."""
  pair = jnp.tile(jnp.arange(leaders.pairs), 2)
  return _measured(model, leaders, target.take(pair), reads)


@functools.partial(jax.jit, static_argnames="rows")
def finish(
  model: gemma.Gemma,
  stream: Stream,
  cells: Cells,
  leaders: Leaders,
  target: ResolvedTarget,
  reads: Reads,
  first: Int[Array, ""],
  rows: int,
) -> Float[Array, " rows"]:
  """The target of some patched runs behind the last layer.

  Args:
    model: The model, with taps where the target reads.
    stream: The residual streams of all patched runs.
    cells: Their cells.
    leaders: Source and base runs.
    target: What is measured, one row a pair.
    reads: What it reads inside the layers, one row a run.
    first: The first run.
    rows: How many runs.
  """
  pair = take_run(cells, first, rows).pair
  runs = dataclasses.replace(
    leaders.base(pair),
    stream=pz.nx.wrap(
      jax.lax.dynamic_slice_in_dim(stream, first, rows), *STREAM
    ),
  )
  return _measured(model, runs, target.take(pair), take_run(reads, first, rows))


def _measured(
  model: gemma.Gemma, runs: Leaders, target: ResolvedTarget, reads: Reads
) -> Float[Array, " rows"]:
  """The target from the last residual stream, float32."""
  normed, taps = gemma.apply_final_norm(model, runs.stream, runs.placement)
  chosen = at_columns(normed, runs.columns, "final_norm")
  reads = reads | {
    site: at_columns(value, runs.columns, site.name)
    for site, value in taps.items()
    if site in target.reads
  }
  one_column = {
    site: pz.nx.wrap(value[:, None], *in_front(site.name))
    for site, value in reads.items()
  }
  nowhere = jnp.zeros_like(runs.columns)
  return target.value(Seen(chosen, model.table.data_array, nowhere, one_column))


@functools.partial(jax.jit, donate_argnames="into")
def written(into: Array, rows: Array, first: Int[Array, ""]) -> Array:
  """An array with other rows from `first` on."""
  return jax.lax.dynamic_update_slice_in_dim(into, rows, first, 0)


def take_run(tree, first: Int[Array, ""], rows: int):
  """Consecutive rows of every array of a pytree."""
  return jax.tree.map(
    lambda a: jax.lax.dynamic_slice_in_dim(a, first, rows), tree
  )
