"""Latents in a terminal: those that carry most, and how far to trust them."""

from collections.abc import Sequence

from rich import console as rich_console
from rich import table as rich_table

from gemma_scope import display
from gemma_scope.analysis.explanation import TokenInfo
from gemma_scope.viz import features_wording
from gemma_scope.viz.features import Features
from gemma_scope.viz.terminal_parts import grid, plain

_OF_LAYER = 2  # latents of each dictionary


def render(
  features: Features,
  tokens: Sequence[TokenInfo],
  console: rich_console.Console,
) -> None:
  """Writes the strongest latents of each layer to a console.

  Args:
    features: What was found.
    tokens: Of the whole prompt.
    console: Where to.
  """
  by = f"relevance, {features.title}" if features.title else "activation"
  console.print(plain(f"Strongest features (latents, by {by})", "bold"))
  console.print(_table(features, tokens))
  console.print(plain(features_wording.quality_summary(features.layers), "dim"))


def _table(features: Features, tokens: Sequence[TokenInfo]) -> rich_table.Table:
  """One row a latent: where it is, at which token, what it favours."""
  table = grid()
  table.add_column("latent", no_wrap=True)
  table.add_column("at", overflow="fold")
  table.add_column(
    "relevance" if features.title else "activation",
    justify="right",
    no_wrap=True,
  )
  table.add_column("favours", overflow="ellipsis", no_wrap=True)
  for layer in features.layers:
    for index, token, activation, relevance in layer.ranked(_OF_LAYER):
      text = tokens[features.first + token].text
      info = features.info(layer.dictionary, index)
      number = f"{activation:.4g}"
      if features.title:
        number = display.signed(relevance)
      table.add_row(
        plain(f"{layer.site} {index}"),
        plain(display.visible(text, spaces=True)),
        plain(number),
        plain(features_wording.favours_phrase(info)),
      )
  return table
