"""A plot of lines over log L0 as SVG, readable on light and dark pages."""

from collections.abc import Sequence
import dataclasses
import html

import numpy as np

_COLOURS = (
  *("#e66101", "#c51b7d", "#2b74ba", "#704cb6", "#1b9e77"),
  *("#777777", "#999999", "#bbbbbb"),
)
_WIDTH, _HEIGHT = 720, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 190, 20, 50


@dataclasses.dataclass(frozen=True)
class Line:
  """One arm.

  Attributes:
    name: In the legend.
    points: (L0, value, low, high), by rising L0.
    dashed: Whether it was not trained.
  """

  name: str
  points: Sequence[tuple[float, float, float, float]]
  dashed: bool = False


def frontier(lines: Sequence[Line], title: str) -> str:
  """The plot: a dot with its interval for each dictionary, a line an arm."""
  every = np.array([p for line in lines for p in line.points])
  xs = np.log2(every[:, 0])
  low = min(0.0, float(every[:, 1].min()))
  high = max(0.0, float(every[:, 1].max()))
  room = 0.08 * ((high - low) or 1.0)
  box = (xs.min() - 0.2, xs.max() + 0.2, low and low - room, high + room)
  parts = [_axes(box, title)]
  for i, line in enumerate(lines):
    parts.append(_line(line, _COLOURS[i % len(_COLOURS)], box))
    parts.append(_legend(line, _COLOURS[i % len(_COLOURS)], i))
  return (
    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
    'font-family="system-ui,sans-serif" font-size="13">'
    f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>'
    f"{''.join(parts)}</svg>\n"
  )


def _place(x: float, y: float, box: tuple[float, ...]) -> tuple[float, float]:
  x0, x1, y0, y1 = box
  across = (x - x0) / (x1 - x0) * (_WIDTH - _LEFT - _RIGHT)
  up = (y - y0) / (y1 - y0) * (_HEIGHT - _TOP - _BOTTOM)
  return round(_LEFT + across, 1), round(_HEIGHT - _BOTTOM - up, 1)


def _axes(box: tuple[float, ...], title: str) -> str:
  x0, x1, y0, y1 = box
  left, bottom = _place(x0, y0, box)
  right, top = _place(x1, y1, box)
  parts = [
    f'<path d="M{left} {top}V{bottom}H{right}" fill="none" stroke="#555"/>'
  ]
  for power in range(int(np.ceil(x0)), int(np.floor(x1)) + 1):
    x, y = _place(power, y0, box)
    parts.append(
      f'<text x="{x}" y="{y + 18}" text-anchor="middle">{2**power}</text>'
    )
  for value in _ticks(y0, y1):
    x, y = _place(x0, value, box)
    parts.append(
      f'<path d="M{x} {y}H{right}" stroke="#ddd"/>'
      f'<text x="{x - 6}" y="{y + 4}" text-anchor="end">{value:g}</text>'
    )
  middle = (left + right) / 2
  parts.append(
    f'<text x="{middle}" y="{_HEIGHT - 10}" text-anchor="middle">L0</text>'
    f'<text x="16" y="{(top + bottom) / 2}" text-anchor="middle" '
    f'transform="rotate(-90 16 {(top + bottom) / 2})">'
    f"{html.escape(title)}</text>"
  )
  return "".join(parts)


def _ticks(low: float, high: float) -> list[float]:
  """Four to nine round numbers, 0 among them where it is inside."""
  step = 10 ** np.floor(np.log10(high - low))
  steps = [s for s in (step, step / 2, step / 5) if (high - low) / s >= 4]
  step = max(steps, default=step / 5)
  first, last = int(np.ceil(low / step)), int(np.floor(high / step))
  return [float(f"{i * step:.6g}") for i in range(first, last + 1)]


def _line(line: Line, colour: str, box: tuple[float, ...]) -> str:
  by_l0: dict[float, list[float]] = {}
  for l0, value, _, _ in line.points:
    by_l0.setdefault(round(np.log2(l0) * 4) / 4, []).append(value)
  places = [_place(x, float(np.mean(v)), box) for x, v in by_l0.items()]
  dash = ' stroke-dasharray="5 4"' if line.dashed else ""
  path = "L".join(f"{x} {y}" for x, y in places)
  parts = [f'<path d="M{path}" fill="none" stroke="{colour}"{dash}/>']
  for l0, value, low, high in line.points:
    x, y = _place(np.log2(l0), value, box)
    ends = [_place(np.log2(l0), v, box)[1] for v in (low, high)]
    parts.append(
      f'<path d="M{x} {ends[0]}V{ends[1]}" stroke="{colour}"/>'
      f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>'
    )
  return "".join(parts)


def _legend(line: Line, colour: str, index: int) -> str:
  x, y = _WIDTH - _RIGHT + 15, _TOP + 12 + 20 * index
  dash = ' stroke-dasharray="5 4"' if line.dashed else ""
  return (
    f'<path d="M{x} {y}h22" stroke="{colour}" stroke-width="2"{dash}/>'
    f'<text x="{x + 28}" y="{y + 4}">{html.escape(line.name)}</text>'
  )
