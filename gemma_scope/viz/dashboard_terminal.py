"""One latent in a terminal: what it fires on, which tokens it favours."""

import os

from rich import console as rich_console
from rich import text as rich_text

from gemma_scope import display
from gemma_scope.analysis.latent_info import ExampleText
from gemma_scope.viz import dashboard_page, features_wording
from gemma_scope.viz.dashboard import Dashboard
from gemma_scope.viz.terminal_parts import plain

_EXAMPLES = 6
_TOKENS = 6
_STRONG = 0.5  # of the largest of all: printed bold


def render(
  dashboard: Dashboard,
  console: rich_console.Console,
  *,
  page: str | os.PathLike[str] | None = None,
) -> None:
  """Writes a summary of a latent to a console.

  Args:
    dashboard: What to write about.
    console: Where to; its width and colours are respected.
    page: Where the whole page was written, to be named at the end.
  """
  info = dashboard.info
  address = features_wording.address(dashboard.site, info.index)
  console.print(plain(address, "bold"))
  console.print(plain(dashboard_page.headline(info)))
  often = features_wording.frequency_phrase(info.frequency)
  console.print(
    plain(
      f"Active on {often}, at most {features_wording.amount(info.maximum)} "
      f"({dashboard.counted:,} tokens, {dashboard.origin}).",
      "dim",
    )
  )
  for title, effects in (
    ("Raises", info.favoured),
    ("Lowers", info.disfavoured),
  ):
    listed = ", ".join(
      features_wording.quoted(text) for text, _ in effects[:_TOKENS]
    )
    console.print(plain(f"{title}: {listed}"))
  if info.examples:
    console.print()
    console.print(plain("Strongest examples", "bold"))
  for example in info.examples[:_EXAMPLES]:
    console.print(_line(example, info.maximum))
  if page is not None:
    console.print()
    path = display.visible(os.fspath(page))
    console.print(plain(f"Report: {path}"), soft_wrap=True)


def _line(example: ExampleText, most: float) -> rich_text.Text:
  """One example; the peak stands between marks, for terminals without bold."""
  strength = example.activations[example.peak]
  line = plain(f"{features_wording.amount(strength):>8}  ", "dim")
  for i, (piece, value) in enumerate(zip(example.pieces, example.activations)):
    shown = display.visible(piece)
    style = "bold" if value > _STRONG * most else "" if value > 0 else "dim"
    if i == example.peak:
      lead = shown[: len(shown) - len(shown.lstrip(" "))]
      line.append(lead).append("«").append(shown.lstrip(" "), style)
      line.append("»")
    else:
      line.append(shown, style)
  return line
