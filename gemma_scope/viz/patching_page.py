"""A patching sweep as one self-contained HTML page (see `page`).

Heat maps of layers by positions or heads, drawn by a script from the numbers;
the strongest cells stand in a table that needs none. It computes no score.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from gemma_scope import axes, display
from gemma_scope.attribution.patching.result import Cell, PatchSweep
from gemma_scope.sites import info_of
from gemma_scope.viz import page, payload, wording

if TYPE_CHECKING:
  from gemma_scope.viz.patching import PatchingReport

_SCRIPTS = ("base.js", "patching.js")
_STYLES = ("page.css", "parts.css", "heatmap.css", "patching.css")
_LISTED = 5  # cells of each site name in the table
_ROW = 0  # a report shows one pair


def patching_to_html(report: "PatchingReport") -> str:
  """Renders the page; a string that is written to a file as UTF-8."""
  sweep = report.sweep
  fields = {
    "r": report,
    "data": page_data(sweep),
    "ends": {"source": sweep.source[_ROW], "base": sweep.base[_ROW]},
    "runs": sum(np.isfinite(v.data_array[_ROW]).sum() for v in sweep.values()),
    "prompts": _prompts(report),
    "found": finding_sentence(sweep.best(1, row=_ROW)),
    "cells": _table(strongest_of_each(sweep, _LISTED)),
    "maps": [(name, info_of(name).meaning) for name in sweep.names()],
    "manifest": page.flatten(payload.to_plain(report.manifest)),
  }
  return page.render_page("patching.html.jinja", _SCRIPTS, _STYLES, fields)


def strongest_of_each(sweep: PatchSweep, count: int) -> list[Cell]:
  """The strongest cells of every site name, in forward order of the names.

  A residual stream passes a finding on from layer to layer; without a limit
  its cells would leave no room for those that wrote it.
  """
  names = sweep.names()
  return [c for n in names for c in sweep.best(count, row=_ROW, name=n)]


def finding_sentence(best: list[Cell]) -> str:
  """The strongest cell in words; `best` comes strongest first."""
  if not best:
    return "No run was patched."
  first = best[0]
  sentence = (
    f"The strongest is {place_phrase(first)}: {display.signed(first.effect)}"
  )
  if np.isfinite(first.normalised):
    sentence += f", {share(first.normalised)} of the difference"
  return sentence + "."


def place_phrase(cell: Cell) -> str:
  """Where a cell is: site, head, token."""
  if cell.position is None:
    return f"{cell.label}, all positions"
  token = wording.quoted(cell.token)
  if cell.token != cell.source_token:
    token += f" ← {wording.quoted(cell.source_token)}"
  return f"{cell.label} at {token} (token {cell.position})"


def share(value: float) -> str:
  """A share of the difference between both runs, such as 103%."""
  if not np.isfinite(value):
    return "not a number"
  return f"{100 * value:.0f}%".replace("-", "−")


def _prompts(report: "PatchingReport") -> list[dict[str, Any]]:
  """Both prompts token by token, with those marked that differ."""
  sweep = report.sweep
  ends = [sweep.source_pieces[_ROW], sweep.pieces[_ROW]]
  clean, corrupt = reversed(ends) if report.noising else ends
  rows = {"clean": clean, "corrupt": corrupt}
  differ = [a != b for a, b in zip(*rows.values())]
  return [
    {
      "title": title,
      "chips": [
        {"text": display.visible(text) or "∅", "differs": other}
        for text, other in zip(pieces, differ)
      ],
    }
    for title, pieces in rows.items()
  ]


def _table(best: list[Cell]) -> list[dict[str, Any]]:
  """The strongest cells with the width of a bar on either side."""
  largest = display.largest(np.asarray([cell.effect for cell in best]))
  return [
    {
      "label": cell.label,
      "position": cell.position,
      "token": cell.token,
      "source": None if cell.source_token == cell.token else cell.source_token,
      "effect": cell.effect,
      "share": share(cell.normalised),
      "width": f"{50 * abs(cell.effect) / largest:.2f}",
      "negative": cell.effect < 0,
    }
    for cell in best
  ]


def page_data(sweep: PatchSweep) -> dict[str, Any]:
  """What the page's script draws: compact, with every text made visible."""
  effect = sweep.effect()
  maps = []
  for name in sweep.names():
    sites = [site for site in effect if site.name == name]
    names = [n for n in effect[sites[0]].named_axes if n != axes.BATCH]
    values = [_whole(effect[site].data_array[_ROW], names) for site in sites]
    maps.append(
      {
        "name": name,
        "layers": [site.layer for site in sites],
        "positions": axes.SEQ in names,
        "heads": names[-1:] != [axes.SEQ] and bool(names),
        "values": payload.to_plain(np.stack(values), 4),
      }
    )
  columns = [] if sweep.columns is None else sweep.columns[_ROW].tolist()
  return {
    "columns": [column for column in columns if column >= 0],
    "base": [_label(piece) for piece in sweep.pieces[_ROW]],
    "source": [_label(piece) for piece in sweep.source_pieces[_ROW]],
    "gap": payload.to_plain(float(sweep.source[_ROW] - sweep.base[_ROW])),
    "start": payload.to_plain(float(sweep.base[_ROW])),
    "maps": maps,
  }


def _whole(value: Any, names: list[Any]) -> np.ndarray:
  """[positions, heads], one of each where there is no such axis."""
  array = np.asarray(value)
  if axes.SEQ not in names:
    array = array[None]
  return array.reshape(len(array), -1)


def _label(text: str) -> str:
  return display.visible(text, spaces=True)
