"""All decoder layers: a scan over whole periods, and the rest one by one.

Gemma 3 repeats a period of five local layers and one global. Blocks of equal
place in the period share one traced program and stack their weights along a
`layer` axis, so that compile time does not grow with depth; the layers past
the last whole period, or all of them in an unrolled stack, follow singly. What
taps record leaves a scan as its outputs.

Layers whose sites exchange values (see `SharingSite`) run one by one, and the
values travel between them beside the residual stream. Where a site needs
values of layers behind it, the pass is rehearsed: run once without what those
sites write, to find the values out, and then run.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from penzai import pz

from gemma_scope import axes
from gemma_scope.model import schedule
from gemma_scope.model.block import Block
from gemma_scope.model.context import Context, Past, Tape
from gemma_scope.model.placement import Placement
from gemma_scope.model.site_layer import (
  ActiveLayer,
  ActiveSite,
  SharingSite,
  acting_on,
)
from gemma_scope.sites import Site

Taps = dict[Site, pz.nx.NamedArray]
Inputs = Mapping[Site, pz.nx.NamedArray]
Carried = dict[str, Any]


@pz.pytree_dataclass
class Stack(pz.nn.Layer):
  """The decoder layers.

  Attributes:
    period: One block for each place in the period, weights stacked along
      `layer`; empty in an unrolled stack.
    rest: The layers after the whole periods.
    num_periods: Length of the `layer` axis of `period`.
    stop: Layers from this index on are not run.
    shared: Layers that several sites use, by the key these give.
  """

  period: tuple[Block, ...]
  rest: tuple[Block, ...]
  num_periods: int = dataclasses.field(metadata={"pytree_node": False})
  stop: int = dataclasses.field(metadata={"pytree_node": False})
  shared: dict[str, Any] = dataclasses.field(default_factory=dict)

  def __call__(
    self,
    x: pz.nx.NamedArray,
    /,
    *,
    placement: Placement,
    past: Past | None = None,
    inputs: Inputs | None = None,
    **_side_inputs,
  ) -> tuple[pz.nx.NamedArray, Taps]:
    """Runs the layers before `stop`.

    Args:
      x: The residual stream, {batch, seq, embedding}.
      placement: Places and rotary angles of the tokens.
      past: Keys and values of earlier tokens with a leading layer axis.
      inputs: Values for edits by site.

    Returns:
      The residual stream after the last layer run, and what taps recorded.
    """
    call = _Call(placement, past, inputs or {}, self.shared)
    carried, before = self._rehearse(x, call)
    x, taps, _ = self._run(x, call, carried, self.stop)
    return x, before | taps

  def _run(
    self, x: pz.nx.NamedArray, call: "_Call", carried: Carried, stop: int
  ) -> tuple[pz.nx.NamedArray, Taps, Carried]:
    """Runs the layers before `stop`; what sites leave joins `carried`."""
    scanned = len(self.period) * self.num_periods
    whole = min(stop, scanned) // max(len(self.period), 1)
    taps: Taps = {}
    for run in schedule.group_periods(whole, self._signature):
      if self._crossed(run):
        layers = run.all_layers(len(self.period))
        x, seen, carried = self._one_by_one(layers, x, call, carried)
      else:
        x, seen = self._scan(run, x, call)
      taps |= seen
    rest = range(whole * len(self.period), stop)
    x, seen, carried = self._one_by_one(rest, x, call, carried)
    return x, taps | seen, carried

  def _one_by_one(
    self,
    layers: range,
    x: pz.nx.NamedArray,
    call: "_Call",
    carried: Carried,
  ) -> tuple[pz.nx.NamedArray, Taps, Carried]:
    taps: Taps = {}
    for layer in layers:
      block = acting_on(self.block(layer), layer)
      inputs = call.inputs_of(layer)
      x, seen, carried = call.run(block, x, layer, inputs, carried)
      taps |= {Site(name, layer): value for name, value in seen.items()}
    return x, taps, carried

  def _rehearse(
    self, x: pz.nx.NamedArray, call: "_Call"
  ) -> tuple[Carried, Taps]:
    """Finds out what sites need of layers behind them; mostly nothing.

    Taps come back as parts `rehearsal` of their sites, except on latents.
    """
    ahead = [
      layer for layer in range(self.num_layers) if self._reads_ahead(layer)
    ]
    if not ahead:
      return {}, {}
    past = None if call.past is None else call.past.rehearsal
    call = dataclasses.replace(call, past=past)
    _, taps, carried = self._run(x, call, {}, max(ahead) + 1)
    return carried, {
      _rehearsed(site): value
      for site, value in taps.items()
      if site.name in (site.base, f"{site.base}.latents")
    }

  @property
  def num_layers(self) -> int:
    """How many layers the stack holds, run or not."""
    return len(self.period) * self.num_periods + len(self.rest)

  def block(self, layer: int) -> Block:
    """The block of one layer, cut out of the stacked weights if need be."""
    block = self._holder(layer)
    if layer >= len(self.period) * self.num_periods:
      return block
    return take_layer(block, layer // len(self.period))

  def _holder(self, layer: int) -> Block:
    """The block that stands for a layer, and perhaps for others."""
    scanned = len(self.period) * self.num_periods
    if layer >= scanned:
      return self.rest[layer - scanned]
    return self.period[layer % len(self.period)]

  def _reads_ahead(self, layer: int) -> bool:
    """Whether a site of a layer needs values of layers behind it."""
    return any(
      isinstance(site, SharingSite)
      and site.ahead
      and (site.layers is None or layer in site.layers)
      for site in active_sites(self._holder(layer))
    )

  def _crossed(self, run: schedule.Run) -> bool:
    """Whether sites in a run exchange values between layers."""
    size = len(self.period)
    return any(
      isinstance(site, SharingSite)
      and site.crosses
      and (site.layers is None or run.first * size + k in site.layers)
      for k, block in enumerate(self.period)
      for site in active_sites(block)
    )

  def _signature(self, p: int) -> tuple[tuple[bool, ...], ...]:
    """Which of the surgery's layers act in period `p`."""
    size = len(self.period)
    return tuple(
      tuple(
        site.layers is None or p * size + k in site.layers
        for site in active_sites(block)
      )
      for k, block in enumerate(self.period)
    )

  def _scan(
    self, run: schedule.Run, x: pz.nx.NamedArray, call: "_Call"
  ) -> tuple[pz.nx.NamedArray, Taps]:
    """Runs the periods of `run` in one scan.

    A run of all periods scans over the weights: a derivative keeps what is
    cut out of them by index, which are the weights once more. Some of the
    periods are cut out by index, for a scan over them would copy them.
    """
    size = len(self.period)
    spans = [run.layers(k, size) for k in range(size)]
    stacked = [call.stacked_inputs(span) for span in spans]
    blocks = [acting_on(b, s[0]) for b, s in zip(self.period, spans)]
    whole = run.count == self.num_periods
    weights = [layer_weights(block) if whole else [] for block in blocks]

    def body(
      carry: pz.nx.NamedArray, step: tuple[jax.Array, Any, Any]
    ) -> tuple[pz.nx.NamedArray, Any]:
      index, inputs, slices = step
      outputs = []
      for k, block in enumerate(blocks):
        layer = index * size + k
        if whole:
          block = put_weights(block, slices[k])
        else:
          block = take_layer(block, index)
        carry, seen, _ = call.run(block, carry, layer, inputs[k], {})
        outputs.append(seen)
      return carry, outputs

    indices = jnp.arange(run.first, run.first + run.count)
    x, outputs = jax.lax.scan(body, x, (indices, stacked, weights))
    return x, unstack(outputs, spans)


@dataclasses.dataclass(frozen=True)
class _Call:
  """What one call of the stack hands to every block."""

  placement: Placement
  past: Past | None
  inputs: Inputs
  shared: Mapping[str, Any]

  def run(
    self,
    block: Block,
    x: pz.nx.NamedArray,
    layer: int | jax.Array,
    inputs: Mapping[str, Any],
    carried: Carried,
  ) -> tuple[pz.nx.NamedArray, dict[str, pz.nx.NamedArray], Carried]:
    """Runs one block, inside a scan or not."""
    past = None
    if self.past is not None:
      key, value = (_take(a, layer) for a in (self.past.key, self.past.value))
      past = Past(key, value, self.past.places)
    using = [s for s in active_sites(block) if isinstance(s, SharingSite)]
    shared = {site.uses: self.shared[site.uses] for site in using}
    crosses = any(site.crosses for site in using)
    x, taps, left = run_block(
      *(block, x, self.placement, past, inputs),
      *(shared, carried if crosses else {}),
    )
    return x, taps, left if crosses else carried

  def inputs_of(self, layer: int) -> dict[str, pz.nx.NamedArray]:
    """The edit inputs of one layer, by site name."""
    return {s.name: v for s, v in self.inputs.items() if s.layer == layer}

  def stacked_inputs(self, layers: range) -> dict[str, pz.nx.NamedArray]:
    """The edit inputs of `layers`, stacked for a scan over them.

    A site that has an input for some of the layers only is not read by any
    edit of this run, for an edit acts on all layers of a run or on none.
    """
    by_layer = [self.inputs_of(layer) for layer in layers]
    shared = set.intersection(*[set(values) for values in by_layer])
    return {
      name: jax.tree.map(
        lambda *leaves: jnp.stack(leaves), *[v[name] for v in by_layer]
      )
      for name in sorted(shared)
    }


@jax.jit
def run_block(
  block: Block,
  x: pz.nx.NamedArray,
  placement: Placement,
  past: Past | None,
  inputs: Mapping[str, Any],
  shared: Mapping[str, Any],
  carried: Carried,
) -> tuple[pz.nx.NamedArray, dict[str, pz.nx.NamedArray], Carried]:
  """One block, what its taps recorded, and what is carried on.

  It is jitted so that layers of equal structure are traced once, not so that
  it be compiled apart: the compiler inlines it.
  """
  tape, carried = Tape(), dict(carried)
  context = Context(placement, tape, past, inputs, shared, carried)
  names = tuple(x.named_axes)
  # An edit may return the axes in another order; a scan must not.
  x = pz.nx.wrap(block(x, context=context).unwrap(*names), *names)
  return x, tape.values, carried


def _rehearsed(site: Site) -> Site:
  """Where a rehearsal's value of a site is found."""
  if site.name != site.base:
    return site
  return Site(f"{site.name}.rehearsal", site.layer)


def active_sites(layer: pz.nn.Layer) -> list[ActiveSite | ActiveLayer]:
  """Every layer that surgery put inside `layer`, outer ones first."""
  found: list[ActiveSite | ActiveLayer] = []

  def visit(node: Any) -> bool:
    if isinstance(node, ActiveSite | ActiveLayer):
      found.append(node)
    return False

  jax.tree_util.tree_flatten(layer, is_leaf=visit)
  return found


def take_layer(block: Block, index: int | jax.Array) -> Block:
  """Cuts one layer out of a block with stacked weights."""
  return put_weights(block, [_take(a, index) for a in layer_weights(block)])


def layer_weights(block: Block) -> list[jax.Array]:
  """The arrays of a block that have an axis `layer` in front."""
  leaves = jax.tree.leaves(block, is_leaf=pz.nx.is_namedarray)
  return [leaf.data_array for leaf in leaves if _is_stacked(leaf)]


def put_weights(block: Block, weights: Sequence[jax.Array]) -> Block:
  """One layer's arrays in the place of those of `layer_weights`."""
  given = iter(weights)

  def put(leaf: Any) -> Any:
    if not _is_stacked(leaf):
      return leaf
    return pz.nx.wrap(next(given), *tuple(leaf.named_axes)[1:])

  return jax.tree.map(put, block, is_leaf=pz.nx.is_namedarray)


def _is_stacked(leaf: Any) -> bool:
  if not isinstance(leaf, pz.nx.NamedArray):
    return False
  return tuple(leaf.named_axes)[:1] == (axes.LAYER,)


def _take(array: jax.Array, index: int | jax.Array) -> jax.Array:
  if isinstance(index, int):
    return jax.lax.index_in_dim(array, index, keepdims=False)
  return jax.lax.dynamic_index_in_dim(array, index, keepdims=False)


def unstack(
  outputs: list[dict[str, pz.nx.NamedArray]], spans: list[range]
) -> Taps:
  """Scan outputs to one entry a layer."""
  taps: Taps = {}
  for seen, layers in zip(outputs, spans):
    for name, stacked in seen.items():
      for i, layer in enumerate(layers):
        one = jax.tree.map(lambda leaf, i=i: leaf[i], stacked)
        taps[Site(name, layer)] = one
  return taps
