"""What a sweep returns: the patched target at every site, position and head."""

import dataclasses
from typing import Any

import numpy as np
from penzai import pz

from gemma_scope import axes, display
from gemma_scope.activations.by_site import BySite
from gemma_scope.activations.tokens import TokenBatch
from gemma_scope.attribution.patching.put import HEAD_AXES
from gemma_scope.sites import Site

FORMAT = "gemma-scope/patching"
VERSION = 1


@dataclasses.dataclass(frozen=True)
class Cell:
  """One patched run.

  Attributes:
    site: The site.
    row: The pair of prompts.
    position: The column, or None where all were patched at once.
    head: The head, or None where all were.
    token: Text of the base prompt's token there; empty for all.
    source_token: Text of the source prompt's.
    target: The target in the patched run.
    effect: The target minus that of the base run.
    normalised: The effect as a share of what the source run has more.
  """

  site: Site
  row: int
  position: int | None
  head: int | None
  token: str
  source_token: str
  target: float
  effect: float
  normalised: float

  @property
  def label(self) -> str:
    """The address with its head, such as `z[5] head 2`."""
    return f"{self.site}" + ("" if self.head is None else f" head {self.head}")


@dataclasses.dataclass(frozen=True, repr=False)
class PatchSweep(BySite):
  """The target of runs of the base prompts, each with one thing patched.

  Keys print as `resid_post[12]`. Arrays are float32 {batch, seq?, heads?}: the
  position and the head that were patched, where these were taken one by one;
  NaN where a shorter prompt has no token.

  Attributes:
    arrays: Site -> patched target.
    source: [batch] target of the unpatched source runs.
    base: [batch] target of the unpatched base runs.
    columns: [batch, positions] the column that each entry along `seq` stands
      for, -1 for none; None where all were patched at once.
    tokens: The base prompts.
    source_tokens: The source prompts.
    pieces: Text of every token of the base prompts.
    source_pieces: Text of every token of the source prompts.
  """

  source: np.ndarray
  base: np.ndarray
  columns: np.ndarray | None
  tokens: TokenBatch
  source_tokens: TokenBatch
  pieces: tuple[tuple[str, ...], ...]
  source_pieces: tuple[tuple[str, ...], ...]

  def effect(self) -> BySite:
    """The patched target minus that of the base run."""
    return self._changed(lambda patched, base, _: patched - base)

  def normalised(self) -> BySite:
    """The effect as a share of the difference between source and base.

        (patched - base) / (source - base)

    0: as if nothing had been patched; 1: as if everything had been. It may be
    negative, or exceed 1. NaN where both unpatched runs have the same target,
    for then there is nothing to take a share of.
    """

    def share(patched: np.ndarray, base: np.ndarray, source: np.ndarray):
      with np.errstate(divide="ignore", invalid="ignore"):
        value = (patched - base) / (source - base)
      return np.where(source == base, np.nan, value)

    return self._changed(share)

  def best(
    self, k: int = 10, *, row: int | None = None, name: str | None = None
  ) -> list[Cell]:
    """The cells with the largest effect in size, largest first.

    Args:
      k: How many.
      row: The pair of prompts; None for all of them.
      name: The site name, such as "z"; None for all of them.
    """
    found = []
    for site, value in self.effect().items():
      if name not in (None, site.name):
        continue
      size = np.abs(np.asarray(value.data_array))
      if row is not None:
        size[np.arange(len(size)) != row] = np.nan
      flat = np.nan_to_num(size, nan=-1.0).ravel()
      for i in np.argsort(-flat, kind="stable")[:k]:
        if flat[i] >= 0:
          found.append((flat[i], site, np.unravel_index(i, size.shape)))
    found.sort(key=lambda entry: -entry[0])
    return [self._cell(site, index) for _, site, index in found[:k]]

  def to_dict(self) -> dict[str, Any]:
    """All of it as JSON: dicts, lists, strings, numbers and None.

    Numbers keep 7 digits; what is not finite becomes None.
    """
    return {
      "format": FORMAT,
      "version": VERSION,
      "tokens": [list(row) for row in self.pieces],
      "source_tokens": [list(row) for row in self.source_pieces],
      "source": _plain(self.source),
      "base": _plain(self.base),
      "columns": None if self.columns is None else self.columns.tolist(),
      "sites": [
        {
          "site": str(site),
          "axes": list(value.named_axes),
          "target": _plain(value.data_array),
        }
        for site, value in self.arrays.items()
      ],
    }

  def names(self) -> tuple[str, ...]:
    """The site names, in forward order of their first layers."""
    return tuple(dict.fromkeys(site.name for site in self.arrays))

  def __repr__(self) -> str:
    runs = sum(int(np.isfinite(v.data_array).sum()) for v in self.values())
    return (
      f"PatchSweep({runs} runs, source={self.source}, base={self.base}, "
      f"at={', '.join(map(str, self.arrays)):.200})"
    )

  def _repr_html_(self) -> str:
    effect = self.effect()
    return "".join(
      self._map_html(effect, name, row)
      for row in range(len(self.base))
      for name in self.names()
    )

  def _map_html(self, effect: BySite, name: str, row: int) -> str:
    """Layers by positions, or by heads, of one pair."""
    sites = [site for site in effect if site.name == name]
    values = np.stack([np.asarray(effect[s].data_array)[row] for s in sites])
    along = tuple(map(str, effect[sites[0]].named_axes))[1:]
    title = f"{name}: effect on the target, prompt {row}"
    if len(along) == 2:
      values = strongest(values, 1)
      title += ", strongest position"
    labels = ["all positions"]
    if along:
      labels = [f"head {i}" for i in range(values.shape[-1])]
    if along == (axes.SEQ,):
      labels = self._labels(row)
    values = values.reshape(len(sites), -1)
    return display.matrix_html(values, list(map(str, sites)), labels, title)

  def _labels(self, row: int) -> list[str]:
    """What stands at each patched column, `base/source` where they differ."""
    assert self.columns is not None
    return [
      "" if column < 0 else self.token_label(row, int(column))
      for column in self.columns[row]
    ]

  def token_label(self, row: int, column: int) -> str:
    """A token's text; `base ← source` where the two prompts differ."""
    ours, theirs = self.pieces[row][column], self.source_pieces[row][column]
    return ours if ours == theirs else f"{ours} ← {theirs}"

  def _changed(self, change) -> BySite:
    arrays = {}
    for site, value in self.arrays.items():
      patched = np.asarray(value.data_array, np.float64)
      along = (-1, *(1,) * (patched.ndim - 1))
      ends = (np.float64(v).reshape(along) for v in (self.base, self.source))
      new = np.asarray(change(patched, *ends), np.float32)
      arrays[site] = pz.nx.wrap(new, *value.named_axes)
    return BySite(arrays)

  def _cell(self, site: Site, index: tuple[int, ...]) -> Cell:
    place = dict(zip(self.arrays[site].named_axes, map(int, index)))
    row = place[axes.BATCH]
    head = next((place[a] for a in HEAD_AXES if a in place), None)
    column = None
    if self.columns is not None:
      column = int(self.columns[row, place[axes.SEQ]])
    target = float(self.arrays[site].data_array[index])
    return Cell(
      site,
      row,
      column,
      head,
      "" if column is None else self.pieces[row][column],
      "" if column is None else self.source_pieces[row][column],
      target,
      float(self.effect()[site].data_array[index]),
      float(self.normalised()[site].data_array[index]),
    )


def strongest(values: np.ndarray, axis: int) -> np.ndarray:
  """The entry of largest size along an axis; NaN counts least."""
  size = np.nan_to_num(np.abs(values), nan=-1.0)
  index = np.expand_dims(size.argmax(axis), axis)
  return np.take_along_axis(values, index, axis).squeeze(axis)


def _plain(values: Any) -> Any:
  """Nested lists of numbers with 7 digits, None for what is not finite."""
  if isinstance(values, float):
    return float(f"{values:.7g}") if np.isfinite(values) else None
  listed = values if isinstance(values, list) else np.asarray(values).tolist()
  return [_plain(value) for value in listed]
