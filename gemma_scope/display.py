"""Building blocks with which results display themselves in a notebook.

Functions from plain values to HTML strings, for `_repr_html_` of any package.
Styles are inline and colours translucent over the page's own background, so
that a cell reads the same in light and dark notebooks, without a style sheet
or script. Reports with views to choose from are `gemma_scope.viz`'s.
"""

import base64
from collections.abc import Sequence
import html
import struct
import unicodedata
import zlib

import numpy as np

from gemma_scope import errors

POSITIVE = (230, 97, 1)  # orange: speaks for; with blue, safe for colour-blind
NEGATIVE = (43, 116, 186)  # blue: speaks against
AMOUNT = (112, 76, 182)  # violet: how much, without a sign

_FULL = 0.62  # the strongest tint; text keeps a contrast of 5:1 on it
_MAX_CELLS = 1_500  # beyond that a matrix becomes a picture
_FRAME = (
  "font:13px/1.5 system-ui,sans-serif;margin:.4em 0 1em;overflow-x:auto;"
  "max-width:100%"
)
_TABLE = "border-collapse:collapse;margin:0;font:inherit;color:inherit"
_CELL = "padding:2px 8px;border:0;text-align:{};white-space:nowrap"
_RULE = "border-bottom:1px solid rgba(128,128,128,.4)"
_CHIP = (
  "display:inline-block;white-space:pre;padding:0 2px;margin:1px;"
  "border-radius:3px;border-bottom:2px {};background:{}"
)


def visible(text: str, *, spaces: bool = False) -> str:
  """Text with its control and direction marks made visible.

  What comes back is safe to send to a terminal and cannot turn the reading
  direction of what follows; it is not escaped for HTML.

  Args:
    text: Any text, such as one token.
    spaces: Whether a leading space is shown as a middle dot.
  """
  shown = "".join(map(_visible_character, text))
  if text in ("\u200c", "\u200d"):
    return f"⟨U+{ord(text):04X}⟩"
  if text and unicodedata.category(text[0]) == "Mn":
    return f"◌{shown}"  # an accent must not settle on what stands before
  if spaces and shown.startswith(" "):
    indent = len(shown) - len(shown.lstrip(" "))
    return "·" * indent + shown[indent:]
  return shown


def _visible_character(character: str) -> str:
  code = ord(character)
  if code < 0x20:
    return {"\n": "↵", "\t": "⇥"}.get(character, chr(0x2400 + code))
  if code in (0x200C, 0x200D):  # joiners: part of emoji and Indic letters
    return character
  if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
    return f"⟨U+{code:04X}⟩"
  return character


def signed(value: float, digits: int = 2) -> str:
  """A number with its sign, `+1.50` or `−0.20`."""
  if not np.isfinite(value):
    return "not a number" if np.isnan(value) else f"{value:+}"
  shown = f"{value:+.{digits}f}"
  return shown.replace("-", "−") if float(shown) else shown[1:]


def percent(probability: float) -> str:
  """A probability as a reader says it: `63.1%`, `<0.1%`."""
  hundred = 100 * probability
  if 0 < hundred < 0.1:
    return "<0.1%"
  if 99.95 <= hundred < 100:
    return ">99.9%"
  return f"{hundred:.1f}%"


def tint(fraction: float, *, sign: bool = True) -> str:
  """The CSS colour of a score between -1 and 1 (or of an amount, 0 to 1)."""
  if not np.isfinite(fraction):
    return "transparent"
  red, green, blue = (
    AMOUNT if not sign else POSITIVE if fraction >= 0 else NEGATIVE
  )
  alpha = _FULL * min(1.0, abs(float(fraction)))
  return f"rgba({red},{green},{blue},{alpha:.3f})"


def largest(values: np.ndarray) -> float:
  """The largest finite magnitude, or 1 where there is none to scale by."""
  finite = np.abs(np.asarray(values, np.float64))
  finite = finite[np.isfinite(finite)]
  return float(finite.max()) if finite.size and finite.max() > 0 else 1.0


def frame_html(body: str, title: str = "", note: str = "") -> str:
  """Puts a title above and a note below a block of HTML.

  Args:
    body: HTML, already escaped.
    title: Plain text; empty for none.
    note: Plain text; empty for none.
  """
  head = f'<div style="font-weight:600">{_escape(title)}</div>'
  foot = f'<div style="opacity:.75;font-size:12px">{_escape(note)}</div>'
  return (
    f'<div style="{_FRAME}">{head if title else ""}{body}'
    f"{foot if note else ''}</div>"
  )


def _escape(text: object) -> str:
  """Any text as HTML that says it, in elements and quoted attributes."""
  return html.escape(visible(str(text)), quote=True)


def tokens_html(
  tokens: Sequence[str],
  scores: Sequence[float] | np.ndarray | None = None,
  title: str = "",
  *,
  apart: Sequence[int] = (),
) -> str:
  """A strip of tokens, coloured by score: orange for, blue against.

  Args:
    tokens: [seq] the text of each token.
    scores: [seq] signed scores, or None for plain tokens.
    title: What the strip shows.
    apart: Positions left out of the colour scale (BOS, turn markers).
  """
  values = None if scores is None else np.asarray(scores, np.float64)
  kept = None
  if values is not None:
    inside = [i for i in range(len(tokens)) if i not in set(apart)]
    kept = largest(values[inside])
  chips = [
    _chip(token, None if values is None else values[index], kept)
    for index, token in enumerate(tokens)
  ]
  note = f"full colour: ±{kept:.3g}" if kept is not None else ""
  strip = f'<div dir="auto" style="line-height:1.9">{"".join(chips)}</div>'
  return frame_html(strip, title, note)


def _chip(token: str, score: float | None, scale: float | None) -> str:
  shown = _escape(token) or "∅"
  end = "<br>" * token.count("\n")
  if score is None or scale is None:
    style = _CHIP.format("solid transparent", "rgba(128,128,128,.15)")
    return f'<bdi style="{style}">{shown}</bdi>{end}'
  line = "dotted rgba(128,128,128,.9)" if score < 0 else "solid transparent"
  style = _CHIP.format(line, tint(score / scale))
  label = _escape(f"{token}: {signed(score, 3)}")
  return f'<bdi style="{style}" title="{label}">{shown}</bdi>{end}'


def table_html(
  columns: Sequence[str], rows: Sequence[Sequence[object]], title: str = ""
) -> str:
  """A small table; numbers are set to the right.

  Args:
    columns: The headings.
    rows: One sequence of cells a row; text is escaped, floats keep 4 digits.
    title: What the table shows.
  """
  head = "".join(_heading(column) for column in columns)
  body = "".join(
    f'<tr style="background:none">{"".join(map(_cell, row))}</tr>'
    for row in rows
  )
  return frame_html(
    f'<table style="{_TABLE}"><thead><tr>{head}</tr>'
    f"</thead><tbody>{body}</tbody></table>",
    title,
  )


def _heading(text: object, scope: str = "col") -> str:
  style = _CELL.format("left") + ";opacity:.75;font-weight:600;"
  style += _RULE if scope == "col" else ""
  return f'<th scope="{scope}" style="{style}">{_escape(text)}</th>'


def _cell(value: object) -> str:
  number = isinstance(value, int | float | np.number)
  text = f"{value:.4g}" if isinstance(value, float | np.floating) else value
  style = _CELL.format("right" if number else "left")
  if number:
    style += ";font-variant-numeric:tabular-nums"
  shown = _escape(text).replace("-", "−" if number else "-")
  return f'<td style="{style}">{shown}</td>'


def predictions_html(
  predictions: Sequence[tuple[str, float]], title: str = ""
) -> str:
  """Candidates for the next token with a bar for each probability.

  Args:
    predictions: (text, probability) pairs, in the order to show.
    title: What was predicted.
  """
  rows = []
  for text, probability in predictions:
    width = f"{100 * min(1.0, max(0.0, probability)):.1f}%"
    bar = (
      f'<div style="width:{width};min-width:1px;height:.9em;border-radius:2px;'
      f'background:{tint(1, sign=False)}"></div>'
    )
    rows.append(
      f'<tr style="background:none">{_cell(visible(text, spaces=True))}'
      f'<td style="{_CELL.format("left")};width:16em">{bar}</td>'
      f'<td style="{_CELL.format("right")}">{html.escape(percent(probability))}'
      "</td></tr>"
    )
  table = f'<table style="{_TABLE}">{"".join(rows)}</table>'
  return frame_html(table, title)


def matrix_html(
  values: np.ndarray,
  row_labels: Sequence[str] = (),
  column_labels: Sequence[str] = (),
  title: str = "",
) -> str:
  """A heat map: orange and blue where signs differ, violet where they do not.

  A matrix of more than 1,500 cells becomes a picture without labels.

  Args:
    values: [rows, columns], any real numbers; NaN stays blank.
    row_labels: [rows] or empty.
    column_labels: [columns] or empty.
    title: What the matrix holds.

  Raises:
    GemmaScopeError: If `values` has not two axes.
  """
  values = np.asarray(values, np.float64)
  if values.ndim != 2:
    raise errors.GemmaScopeError(
      "A heat map needs a matrix.",
      received=f"an array of shape {values.shape}",
      instead="two axes, such as matrix_html(pattern[batch, head])",
    )
  scale = largest(values)
  sign = bool(np.nanmin(values, initial=0) < 0)
  note = f"{'±' if sign else '0 to '}{scale:.3g} · {values.shape[0]} rows, "
  note += f"{values.shape[1]} columns"
  if values.size > _MAX_CELLS:
    return frame_html(_picture(values / scale, sign, title), title, note)
  head = "".join(_heading(label) for label in column_labels)
  if head:
    head = f"<thead><tr>{'<th></th>' if len(row_labels) else ''}{head}</tr>"
    head += "</thead>"
  body = []
  for index, row in enumerate(values):
    label = _heading(row_labels[index], "row") if len(row_labels) else ""
    cells = "".join(_matrix_cell(value, scale, sign) for value in row)
    body.append(f'<tr style="background:none">{label}{cells}</tr>')
  table = (
    f'<table style="{_TABLE}">{head}<tbody>{"".join(body)}</tbody></table>'
  )
  return frame_html(table, title, note)


def _matrix_cell(value: float, scale: float, sign: bool) -> str:
  style = _CELL.format("right") + ";font-variant-numeric:tabular-nums"
  shown = f"{value:.2g}".replace("-", "−") if np.isfinite(value) else ""
  colour = tint(value / scale, sign=sign)
  return f'<td style="{style};background:{colour}">{shown}</td>'


def _picture(fractions: np.ndarray, sign: bool, title: str) -> str:
  """The matrix as a PNG of one translucent pixel a cell."""
  fractions = np.nan_to_num(fractions)
  colours = np.array([AMOUNT, POSITIVE, NEGATIVE], np.uint8)
  index = np.where(fractions < 0, 2, 1) if sign else np.zeros_like(fractions)
  alpha = np.rint(np.abs(fractions).clip(0, 1) * 255).astype(np.uint8)
  pixels = np.dstack([colours[index.astype(int)], alpha])
  code = base64.b64encode(_png(pixels)).decode()
  label = _escape(title or "heat map")
  return (
    f'<img alt="{label}" src="data:image/png;base64,{code}" style="width:'
    f"min(100%,{min(900, 8 * fractions.shape[1])}px);min-height:120px;"
    'image-rendering:pixelated;border:1px solid rgba(128,128,128,.4)">'
  )


def _png(pixels: np.ndarray) -> bytes:
  """Encodes [height, width, 4] uint8 RGBA as a PNG file."""
  height, width, _ = pixels.shape
  rows = b"".join(b"\0" + row.tobytes() for row in pixels)
  header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
  chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
  return b"\x89PNG\r\n\x1a\n" + b"".join(
    struct.pack(">I", len(data))
    + name
    + data
    + struct.pack(">I", zlib.crc32(name + data))
    for name, data in chunks
  )
