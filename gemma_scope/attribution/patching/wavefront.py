"""Many patched runs at once, layer by layer.

A patched run equals its base run up to the layer where something is put in. So
the source run, the base run and all patched runs go through the layers
together:

    leaders     source and base run; what they have at this layer's sites is
                recorded
    advancing   runs that were patched in an earlier layer
    entering    runs that are patched in this layer: they start from the base
                run's residual stream

No other activation outlives its layer, so memory does not grow with the number
of sites. Runs stand in the order in which they enter: those under way are the
front part of one array, cut into chunks of one size.
"""

from collections.abc import Callable, Sequence
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from gemma_scope.attribution.pairs import Pairs
from gemma_scope.attribution.patching import programs
from gemma_scope.attribution.patching.cells import Cells
from gemma_scope.attribution.patching.layers import ByName, Layer, layer_of
from gemma_scope.attribution.patching.leaders import STREAM, Leaders, start
from gemma_scope.attribution.patching.put import Patch
from gemma_scope.model.gemma import Gemma
from gemma_scope.sites import Site
from gemma_scope.surgery.select import tap, wrap_sites

Tell = Callable[[int], None]


@dataclasses.dataclass(frozen=True)
class Models:
  """One model in the three forms that the runs need.

  All have taps where the target reads.

  Attributes:
    leading: With taps at the sites of the sweep and at their likes in all
      other layers, so that equal layers share their programs.
    entering: With patches there.
    plain: As it is.
    names: The site names of the sweep.
    reads: The sites inside the layers that the target reads.
  """

  leading: Gemma
  entering: Gemma
  plain: Gemma
  names: tuple[str, ...]
  reads: tuple[Site, ...]

  def layer(self, model: Gemma, layer: int) -> Layer:
    """One layer of one of the forms."""
    read = tuple(site.name for site in self.reads if site.layer == layer)
    return layer_of(model, layer, read)


def make_models(
  model: Gemma, sites: Sequence[Site], reads: tuple[Site, ...]
) -> Models:
  """The forms of a model; edits that it has stay in force.

  Args:
    model: The model.
    sites: The sites of the sweep.
    reads: The sites that the target reads.
  """
  names = tuple(dict.fromkeys(site.name for site in sites))
  everywhere = _alike(sites, model.stack.num_layers)
  return Models(
    tap(tap(model, everywhere), reads),
    tap(wrap_sites(model, everywhere, Patch), reads),
    tap(model, reads),
    names,
    tuple(site for site in reads if site.layer is not None),
  )


def _alike(sites: Sequence[Site], num_layers: int) -> tuple[Site, ...]:
  """The sites of some names in all layers; parts of sites only where asked."""
  found: set[Site] = set()
  for site in sites:
    if site.layer is not None:
      layers = range(num_layers) if site.name == site.base else [site.layer]
      found.update(Site(site.name, layer) for layer in layers)
  return tuple(sorted(found))


@dataclasses.dataclass(frozen=True)
class Sizes:
  """The shapes of the programs, the same for all waves of a sweep.

  Attributes:
    pairs: Pairs of prompts in a wave.
    runs: Patched runs in a wave.
    rows: Runs that advance at once.
    entering: Runs that enter at once.
  """

  pairs: int
  runs: int
  rows: int
  entering: int

  @property
  def capacity(self) -> int:
    """Rows of the array of runs: a last chunk may reach past the end."""
    return self.runs + max(self.rows, self.entering)


@dataclasses.dataclass(frozen=True)
class Wave:
  """The runs of one wave on their way through the layers.

  Attributes:
    leaders: Source and base runs.
    stream: The residual streams of the patched runs, [capacity, seq,
      embedding]; those that have entered are the front part.
    cells: Their cells, [capacity].
    layers: [runs] the layer at which each enters, on the host.
    under_way: How many have entered.
    led: What the target reads of the leaders, in the layers passed.
    reads: What it reads of the patched runs.
  """

  leaders: Leaders
  stream: programs.Stream
  cells: Cells
  layers: np.ndarray
  under_way: int = 0
  led: programs.Reads = dataclasses.field(default_factory=dict)
  reads: programs.Reads = dataclasses.field(default_factory=dict)

  def record(self, values: programs.Reads, first: int) -> "Wave":
    """Keeps what the target reads of some patched runs."""
    reads = dict(self.reads)
    for site, value in values.items():
      shape = (self.stream.shape[0], *value.shape[1:])
      into = reads.get(site, jnp.zeros(shape, value.dtype))
      reads[site] = programs.written(into, value, np.int32(first))
    return dataclasses.replace(self, reads=reads)


def run_wave(
  models: Models, pairs: Pairs, cells: Cells, sizes: Sizes, tell: Tell
) -> tuple[np.ndarray, np.ndarray]:
  """The target of patched runs, and of the runs that they come from.

  Args:
    models: The model.
    pairs: As many pairs as `sizes` says.
    cells: At most as many cells as `sizes` says, by layer.
    sizes: The shapes of the programs.
    tell: Called behind every layer with the number of patched runs there.

  Returns:
    [cells] and [2, pairs]: patched; source and base. Float32.
  """
  wave = _begin(models, pairs, cells, sizes)
  for layer in range(models.plain.stack.stop):
    wave = _step(models, sizes, wave, layer)
    tell(wave.under_way)
  leaders = wave.leaders
  clean = programs.finish_leaders(models.plain, leaders, pairs.target, wave.led)
  patched = [
    programs.finish(
      *(models.plain, wave.stream, wave.cells, leaders),
      *(pairs.target, wave.reads, np.int32(first), sizes.rows),
    )
    for first in range(0, len(cells), sizes.rows)
  ]
  return np.concatenate(patched)[: len(cells)], np.asarray(clean).reshape(2, -1)


def _begin(models: Models, pairs: Pairs, cells: Cells, sizes: Sizes) -> Wave:
  """A wave before the first layer."""
  leaders = start(models.plain, pairs)
  spare = (0, sizes.capacity - len(cells))
  padded = jax.tree.map(lambda a: jnp.asarray(np.pad(a, spare)), cells)
  like = leaders.stream.unwrap(*STREAM)
  stream = jnp.zeros((sizes.capacity, *like.shape[1:]), like.dtype)
  return Wave(leaders, stream, padded, cells.layer)


def _step(models: Models, sizes: Sizes, wave: Wave, layer: int) -> Wave:
  """All runs through one layer."""
  after, sources, seen = programs.lead(
    models.layer(models.leading, layer), wave.leaders, models.names
  )
  if layer == 0 and "embed" in models.names:
    sources["embed"] = wave.leaders.stream
  led = wave.led | {Site(n, layer): value for n, value in seen.items()}
  wave = dataclasses.replace(wave, led=led)
  wave = _advance(models, sizes, wave, layer)
  wave = _enter(models, sizes, wave, layer, sources)
  wave.stream.block_until_ready()  # so that progress tells the truth
  return dataclasses.replace(wave, leaders=after)


def _advance(models: Models, sizes: Sizes, wave: Wave, layer: int) -> Wave:
  """The runs under way through one layer."""
  plain = models.layer(models.plain, layer)
  for first in range(0, wave.under_way, sizes.rows):
    stream, seen = programs.advance(
      *(plain, wave.stream, wave.cells, wave.leaders),
      *(np.int32(first), sizes.rows),
    )
    wave = dataclasses.replace(wave, stream=stream)
    wave = wave.record({Site(n, layer): v for n, v in seen.items()}, first)
  return wave


def _enter(
  models: Models,
  sizes: Sizes,
  wave: Wave,
  layer: int,
  sources: ByName,
) -> Wave:
  """The runs that are patched in one layer through it.

  What the target reads in earlier layers is what their base runs had there.
  """
  stop = int(np.searchsorted(wave.layers, layer, side="right"))
  patching = models.layer(models.entering, layer)
  rows = sizes.entering
  for first in range(wave.under_way, stop, rows):
    stream, seen = programs.enter(
      *(patching, wave.stream, wave.cells, wave.leaders, sources),
      *(np.int32(first), rows, models.names),
    )
    base = sizes.pairs + wave.cells.pair[first : first + rows]
    before = {s: v[base] for s, v in wave.led.items() if s.layer != layer}
    here = {Site(n, layer): value for n, value in seen.items()}
    wave = dataclasses.replace(wave, stream=stream).record(before | here, first)
  return dataclasses.replace(wave, under_way=stop)
