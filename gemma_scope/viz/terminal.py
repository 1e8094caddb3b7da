"""The explanation in a terminal: predictions, coloured tokens, components.

Colours are backgrounds between grey and orange (for) or blue (against) with
letters in black or white, so that they read the same on dark and on light
terminals. Without colour, numbers stand behind the tokens. Tokens are written
as visible text: no control character of a prompt reaches the terminal.
"""

from collections.abc import Iterator
import os
from typing import TYPE_CHECKING

import numpy as np
from rich import console as rich_console
from rich import table as rich_table
from rich import text as rich_text

from gemma_scope import display
from gemma_scope.analysis import explanation as parts
from gemma_scope.viz import features_terminal, wording
from gemma_scope.viz.terminal_parts import WIDE, bar, grid, plain, rgb

if TYPE_CHECKING:
  from gemma_scope.viz.explanation import Explanation

_GREY = (112, 112, 112)
_FAINT = 0.08  # of the largest score: below, a token stays uncoloured
_WHOLE = 240  # tokens; of longer prompts only the end is written out
_END = 120  # tokens of the end of a long prompt
_COMPONENTS = 6
_TOKENS = 8  # strongest tokens listed for long prompts


def render(
  explanation: "Explanation",
  console: rich_console.Console,
  *,
  report: str | os.PathLike[str] | None = None,
) -> None:
  """Writes a summary of an explanation to a console.

  Args:
    explanation: What to write about.
    console: Where to; its width and colours are respected.
    report: Where the whole report was written, to be named at the end.
  """
  console.print(plain(wording.prediction_sentence(explanation), "bold"))
  console.print(plain(wording.question_sentence(explanation.target)))
  console.print()
  console.print(_predictions(explanation, console))
  for attribution in explanation.attributions:
    console.print()
    _attribution(explanation, attribution, console)
  console.print()
  console.print(plain("Strongest components (direct contribution)", "bold"))
  console.print(_components(explanation.components, console))
  if explanation.features is not None:
    console.print()
    features = explanation.features
    features_terminal.render(features, explanation.tokens, console)
  elif explanation.features_note:
    console.print()
    console.print(plain(explanation.features_note, "dim"))
  if report is not None:
    console.print()
    path = display.visible(os.fspath(report))
    console.print(plain(f"Report: {path}"), soft_wrap=True)


def _predictions(
  explanation: "Explanation", console: rich_console.Console
) -> rich_table.Table:
  """Candidates with their probabilities; the target and its rival marked."""
  table = grid()
  table.add_column("next token", overflow="fold")
  table.add_column("prob.", justify="right", no_wrap=True)
  table.add_column("logit", justify="right", no_wrap=True)
  wide = console.width >= WIDE
  if wide:
    table.add_column("", no_wrap=True)
  target = explanation.target
  most = max((p.prob for p in explanation.predictions), default=1.0) or 1.0
  for prediction in explanation.predictions:
    chosen = prediction.id in (target.id, target.against_id)
    token = display.visible(prediction.text, spaces=True)
    row = [
      plain(token, "bold" if chosen else ""),
      plain(display.percent(prediction.prob)),
      plain(display.signed(prediction.logit)),
    ]
    if wide:
      row.append(bar(prediction.prob / most, rgb(display.AMOUNT), console))
    table.add_row(*row)
  return table


def _attribution(
  explanation: "Explanation",
  attribution: parts.TokenAttribution,
  console: rich_console.Console,
) -> None:
  """The tokens of one method, and for long prompts a list of the strongest."""
  tokens = explanation.tokens
  scores = np.nan_to_num(np.asarray(attribution.scores, np.float64))
  words = [i for i, token in enumerate(tokens) if not token.special]
  scale = display.largest(scores[words])
  title = plain(display.visible(attribution.title), "bold")
  if _coloured(console):
    title.append("  orange: for, blue: against", "not bold dim")
  console.print(title)
  first = 0 if len(tokens) <= _WHOLE else len(tokens) - _END
  strip = plain("… " if first else "")
  for piece in _pieces(tokens[first:], scores[first:], scale, console):
    strip.append_text(piece)
  console.print(strip)
  if first:
    strongest = sorted(words, key=lambda i: -abs(scores[i]))[:_TOKENS]
    listed = [
      f"{wording.name_token(tokens, i)} {display.signed(scores[i])}"
      for i in strongest
    ]
    console.print(plain(f"Strongest of all: {wording.join_words(listed)}."))
  console.print(plain(wording.completeness_sentence(attribution), "dim"))
  area = wording.area_sentence(attribution, explanation.random_areas)
  if area is not None:
    console.print(plain(area, "dim"))


def _pieces(
  tokens: tuple[parts.TokenInfo, ...],
  scores: np.ndarray,
  scale: float,
  console: rich_console.Console,
) -> Iterator[rich_text.Text]:
  """Tokens with a background each, or with numbers where there is no colour."""
  coloured = _coloured(console)
  for token, score in zip(tokens, scores):
    shown = display.visible(token.text)
    strong = abs(score) >= _FAINT * scale
    if coloured and strong and not token.special:
      yield plain(shown, _background(score / scale))
    elif strong:
      yield plain(shown, "dim" if token.special else "")
      yield plain(f"[{display.signed(score)}]", "dim")
    else:
      yield plain(shown, "dim" if token.special else "")
    if "\n" in token.text:
      yield plain("\n" * token.text.count("\n"))


def _coloured(console: rich_console.Console) -> bool:
  return console.color_system is not None and not console.no_color


def _background(fraction: float) -> str:
  """A rich style: from grey to the colour of the sign, readable letters."""
  amount = min(1.0, abs(fraction))
  end = display.POSITIVE if fraction > 0 else display.NEGATIVE
  mixed = [round(a + amount * (b - a)) for a, b in zip(_GREY, end)]
  light = 0.299 * mixed[0] + 0.587 * mixed[1] + 0.114 * mixed[2]
  letters = (0, 0, 0) if light > 118 else (255, 255, 255)
  return f"{rgb(letters)} on {rgb(mixed)}"


def _components(
  components: parts.ComponentScores, console: rich_console.Console
) -> rich_table.Table:
  table = grid()
  table.show_header = False
  table.add_column(overflow="fold")
  table.add_column(justify="right", no_wrap=True)
  wide = console.width >= WIDE
  if wide:
    table.add_column(no_wrap=True)
  strongest = wording.strongest_components(components, _COMPONENTS)
  most = max((abs(value) for _, value in strongest), default=1.0) or 1.0
  for label, value in strongest:
    row = [plain(label), plain(display.signed(value))]
    if wide:
      colour = display.POSITIVE if value > 0 else display.NEGATIVE
      row.append(bar(abs(value) / most, rgb(colour), console))
    table.add_row(*row)
  return table
