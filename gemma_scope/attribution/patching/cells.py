"""The runs of a sweep: which site, layer, position and head each one patches.

Pure bookkeeping on integers. A cell is one run; its slot is its place in the
results of all sites, laid end to end.
"""

from collections.abc import Sequence
import dataclasses
import math

import jax
import numpy as np
from penzai import pz

from gemma_scope import axes
from gemma_scope.attribution.patching.put import ALL, HEAD_AXES
from gemma_scope.errors import TextError
from gemma_scope.model.config import GemmaConfig
from gemma_scope.sites import Site

Positions = str | Sequence[int]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cells:
  """Patched runs, [cells] int32 each.

  Attributes:
    pair: The pair of prompts.
    layer: The layer at which the run departs from the base run.
    site: The site, as its number among the names of the sweep.
    position: The column that is patched; `ALL` for every one.
    head: The head that is patched; `ALL` for every one.
  """

  pair: np.ndarray
  layer: np.ndarray
  site: np.ndarray
  position: np.ndarray
  head: np.ndarray

  def __len__(self) -> int:
    return len(self.pair)

  def take(self, index: np.ndarray | slice) -> "Cells":
    """Some of the cells, in any order."""
    return jax.tree.map(lambda a: a[index], self)


@dataclasses.dataclass(frozen=True)
class Grid:
  """All cells of a sweep, and where their results go.

  Attributes:
    cells: The runs, pair by pair.
    slot: [cells] the place of each in the results, laid end to end.
    names: The site names, in the order of `Cells.site`.
    shapes: Site -> (axis names, sizes) of its result.
  """

  cells: Cells
  slot: np.ndarray
  names: tuple[str, ...]
  shapes: dict[Site, tuple[tuple[str, ...], tuple[int, ...]]]

  def results(self, values: np.ndarray) -> dict[Site, pz.nx.NamedArray]:
    """One array a site; NaN where there is no cell.

    Args:
      values: [cells] what each run gave.
    """
    flat = np.full(sum(math.prod(s) for _, s in self.shapes.values()), np.nan)
    flat[self.slot] = values
    found, start = {}, 0
    for site, (names, sizes) in self.shapes.items():
      stop = start + math.prod(sizes)
      part = flat[start:stop].astype(np.float32).reshape(sizes)
      found[site], start = pz.nx.wrap(part, *names), stop
    return found


def make_grid(
  sites: Sequence[Site],
  columns: np.ndarray | None,
  batch: int,
  config: GemmaConfig,
  *,
  each_head: bool,
) -> Grid:
  """The cells of a sweep.

  Args:
    sites: The sites, in forward order.
    columns: [batch, positions] the columns to patch one by one, -1 where a
      shorter prompt has none; None to patch all at once.
    batch: Number of pairs.
    config: The model's shape.
    each_head: Whether the heads of a site are patched one by one.
  """
  names = tuple(dict.fromkeys(site.name for site in sites))
  where = np.full((batch, 1), ALL) if columns is None else columns
  real = np.ones(where.shape, bool) if columns is None else where >= 0
  counts = {axes.HEADS: config.num_heads, axes.KV_HEADS: config.num_kv_heads}
  shapes, tables, slots, start = {}, [], [], 0
  for site in sites:
    axis = _head_axis(site) if each_head else None
    heads = np.arange(counts[axis]) if axis else np.asarray([ALL])
    row, column, head = np.nonzero(np.repeat(real[..., None], len(heads), 2))
    own = (
      np.full(len(row), site.layer or 0),
      np.full(len(row), names.index(site.name)),
    )
    tables.append(np.stack([row, *own, where[row, column], heads[head]]))
    full = (*where.shape, len(heads))
    slots.append(start + np.ravel_multi_index((row, column, head), full))
    start += math.prod(full)
    sizes = {axes.BATCH: batch}
    sizes |= {} if columns is None else {axes.SEQ: where.shape[1]}
    sizes |= {axis: len(heads)} if axis else {}
    shapes[site] = tuple(sizes), tuple(sizes.values())
  table, slot = np.concatenate(tables, axis=1), np.concatenate(slots)
  order = np.lexsort((slot, table[1], table[0]))  # by pair, then by layer
  cells = Cells(*table[:, order].astype(np.int32))
  return Grid(cells, slot[order], names, shapes)


def _head_axis(site: Site) -> str | None:
  """The axis of a site's heads, if it has any."""
  return next((n for n in site.info.axes if n in HEAD_AXES), None)


def columns_of(positions: Positions, lengths: np.ndarray) -> np.ndarray | None:
  """The columns that `positions` means in each prompt, [batch, positions].

  Args:
    positions: "each" for every token in turn, "all" for all at once, or
      columns; negative ones count from each prompt's end.
    lengths: [batch] tokens of each prompt.

  Returns:
    Columns, -1 where a shorter prompt has none; None for "all".

  Raises:
    TextError: If `positions` means nothing, or a prompt has no such token.
  """
  if isinstance(positions, str):
    if positions == "all":
      return None
    if positions == "each":
      every = np.arange(lengths.max())[None, :]
      return np.where(every < lengths[:, None], every, -1)
    raise _no_position(positions, lengths)
  wanted = np.asarray(positions)
  if wanted.ndim != 1 or not wanted.size or wanted.dtype.kind not in "iu":
    raise _no_position(positions, lengths)
  columns = np.where(wanted < 0, lengths[:, None] + wanted, wanted[None, :])
  if (columns < 0).any() or (columns >= lengths[:, None]).any():
    raise _no_position(positions, lengths)
  return columns


def _no_position(positions: object, lengths: np.ndarray) -> TextError:
  return TextError(
    "There are no such positions to patch.",
    received=f"positions={positions!r}, prompts of {lengths.tolist()} tokens",
    instead='"each", "all", or columns inside every prompt, such as [3, -1]',
  )
