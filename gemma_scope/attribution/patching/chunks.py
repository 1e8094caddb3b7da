"""How many runs a sweep takes through a layer at once, and how many in a wave.

The memory allowed is halved: one half for the residual streams of the runs
under way, the other for what the programs of one layer need besides, which the
compiler tells (`memory_analysis`: temporaries and outputs). What the model's
weights take is not counted.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gemma_scope.attribution.pairs import Pairs
from gemma_scope.attribution.patching import programs
from gemma_scope.attribution.patching.cells import Cells
from gemma_scope.attribution.patching.leaders import STREAM, start
from gemma_scope.attribution.patching.wavefront import Models, Sizes
from gemma_scope.errors import ConfigError

# Tokens of one call: what it costs besides them (reading the weights, filling
# the machine), and how many are enough to make little of that.
_OVERHEAD = {"cpu": 64}
_ENOUGH = {"cpu": 2048}
_OVERHEAD_ELSEWHERE = 2048
_ENOUGH_ELSEWHERE = 65_536


def choose_sizes(
  models: Models, pairs: Pairs, cells: Cells, memory: int
) -> Sizes:
  """The shapes of a sweep that keeps inside `memory`.

  Args:
    models: The model.
    pairs: All pairs.
    cells: All cells, pair by pair.
    memory: Bytes.

  Raises:
    ConfigError: If not even one run fits.
  """
  limit = memory // 2
  one = _run_bytes(models, pairs)
  if limit < 2 * one:  # a run, and a row for a chunk that reaches past it
    raise _too_little(memory, 4 * one)
  held = limit // one
  most = held // 2
  while True:
    sizes = _efficient(pairs, cells, held, most)
    needed = program_bytes(models, pairs, sizes)
    if needed <= limit:
      return sizes
    if sizes.rows == 1:
      raise _too_little(memory, 2 * needed)
    most = max(1, min(sizes.rows - 1, sizes.rows * limit // needed))


def fixed_sizes(
  models: Models, pairs: Pairs, cells: Cells, memory: int, rows: int
) -> Sizes:
  """The shapes of a sweep with `rows` runs at once.

  Only the runs under way are fitted to `memory` then.
  """
  held = max(2 * rows, memory // 2 // _run_bytes(models, pairs))
  entering = min(rows, int(_entering(cells).max()))
  return _sizes(pairs, cells, held, rows, entering)


def _efficient(pairs: Pairs, cells: Cells, held: int, most: int) -> Sizes:
  """Shapes that waste little, with at most `most` rows at once."""
  seq, platform = pairs.base.ids.shape[1], jax.default_backend()
  enough = -(-_ENOUGH.get(platform, _ENOUGH_ELSEWHERE) // seq)
  overhead = _OVERHEAD.get(platform, _OVERHEAD_ELSEWHERE) / seq
  entering = _entering(cells.take(slice(held)))
  under_way = np.cumsum(entering) - entering
  rows = best_rows(under_way, entering, min(most, enough), overhead)
  chunks = -(-int(entering.max()) // rows)
  return _sizes(pairs, cells, held, rows, -(-int(entering.max()) // chunks))


def _sizes(
  pairs: Pairs, cells: Cells, held: int, rows: int, entering: int
) -> Sizes:
  """Shapes for so many rows at once, with at most `held` in all."""
  at_once = min(pairs.base.ids.shape[0], max(1, rows // 2))
  runs = min(
    held - max(rows, entering), at_once * int(np.bincount(cells.pair).max())
  )
  return Sizes(at_once, max(1, runs), rows, entering)


def _entering(cells: Cells) -> np.ndarray:
  """[layers] how many of some runs enter in each layer."""
  return np.bincount(cells.layer)


def waves(cells: Cells, sizes: Sizes) -> Iterator[np.ndarray]:
  """Cuts the cells into waves: indices of each, by layer.

  Args:
    cells: All cells, pair by pair.
    sizes: How many runs and pairs a wave holds.
  """
  first = 0
  while first < len(cells):
    stop = min(len(cells), first + sizes.runs)
    last_pair = cells.pair[first] + sizes.pairs
    stop = min(stop, int(np.searchsorted(cells.pair, last_pair)))
    index = np.arange(first, stop)
    yield index[np.argsort(cells.layer[first:stop], kind="stable")]
    first = stop


def best_rows(
  under_way: np.ndarray, entering: np.ndarray, most: int, overhead: float
) -> int:
  """The number of rows at once that computes the least in vain.

  Args:
    under_way: [layers] runs that advance through each layer.
    entering: [layers] runs that enter in each.
    most: The largest number allowed.
    overhead: What a call costs besides its rows, in rows.
  """
  top = max(1, min(most, int(max(under_way.max(), entering.max()))))
  rows = np.arange(1, top + 1)[:, None]
  own = np.minimum(rows, max(1, int(entering.max())))
  cost = np.ceil(under_way / rows) * (rows + overhead)
  cost = cost + np.ceil(entering / own) * (own + overhead)
  return int(rows[np.argmin(cost.sum(axis=1)), 0])


def program_bytes(models: Models, pairs: Pairs, sizes: Sizes) -> int:
  """What the largest program of one layer needs besides its arguments.

  The programs are compiled for it; a sweep of these sizes then calls them.
  """
  some = pairs.take(jnp.zeros(sizes.pairs, jnp.int32))
  leaders = jax.eval_shape(start, models.plain, some)
  like = leaders.stream.unwrap(*STREAM)
  stream = jax.ShapeDtypeStruct((sizes.capacity, *like.shape[1:]), like.dtype)
  index: Any = jax.ShapeDtypeStruct((sizes.capacity,), jnp.int32)
  runs = stream, Cells(index, index, index, index, index), leaders
  first, seen, most = np.int32(0), set(), 0
  for layer in range(models.plain.stack.stop):
    leading, entering, plain = (
      models.layer(form, layer)
      for form in (models.leading, models.entering, models.plain)
    )
    kind = jax.tree.structure((leading, entering, plain))
    if kind in seen:
      continue
    seen.add(kind)
    led = programs.lead.lower(leading, leaders, models.names)
    sources = led.out_info[1]
    lowered = (
      led,
      programs.enter.lower(
        *(entering, *runs, sources, first, sizes.entering, models.names)
      ),
      programs.advance.lower(plain, *runs, first, sizes.rows),
    )
    most = max(most, *(_bytes(program.compile()) for program in lowered))
  return most


def _bytes(compiled: jax.stages.Compiled) -> int:
  """Temporaries and outputs, without those written in place."""
  told = compiled.memory_analysis()
  if told is None:  # a backend that does not say
    return 0
  return (
    told.temp_size_in_bytes
    + told.output_size_in_bytes
    - told.alias_size_in_bytes
  )


def _run_bytes(models: Models, pairs: Pairs) -> int:
  """Bytes of one run's residual stream."""
  config = models.plain.config
  width = pairs.base.ids.shape[1] * config.d_model
  return width * models.plain.table.data_array.dtype.itemsize


def _too_little(memory: int, needed: int) -> ConfigError:
  return ConfigError(
    "The memory allowed for patching does not hold a single run.",
    received=f"memory={memory:,} bytes",
    instead=f"at least memory={needed:,}, or shorter prompts",
  )
