"""The card of the starter suite: data, recipe, licence, numbers.

JSON in the archive, the same as a page for people.
"""

from collections.abc import Mapping
from typing import Any

_SHOWN = {
  "l0": 1,
  "fvu": 4,
  "cosine": 3,
  "delta_loss": 4,
  "dead": 4,
  "dense": 4,
}

DATA = (
  "WikiText-2, Wikipedia passages (CC BY-SA), messages of presidents of the "
  "USA (public domain), OpenWebText passages: 10 million tokens of English; "
  "every 50th document held out. Examples quote the first three alone."
)
LICENCE = (
  "Weights and tables: Apache-2.0, as this repository. Quoted passages of "
  "Wikipedia: CC BY-SA 4.0. The dictionaries describe Gemma 3 270M, whose own "
  "weights are under the Gemma Terms of Use and are not part of them."
)


def make_card(
  metrics: Mapping[str, Any],
  descriptions: Mapping[str, Mapping[str, str]],
  recipe: Mapping[str, Any],
) -> dict[str, Any]:
  """What `Suite.card` holds.

  Args:
    metrics: "dictionaries": name -> its numbers, those with an interval as
      [value, low, high]; "lost": name -> FVU lost by rounding; "tokens" of
      held-out text.
    descriptions: Name of a dictionary -> latent -> what it fires on.
    recipe: Command, settings and manifest.
  """
  return {
    "title": "Starter suite of Gemma 3 270M",
    "data": DATA,
    "licence": LICENCE,
    "recipe": recipe,
    "held_out_tokens": metrics["tokens"],
    "metrics": {
      name: _row(numbers, metrics["lost"][name])
      for name, numbers in metrics["dictionaries"].items()
    },
    "descriptions": descriptions,
  }


def card_page(card: Mapping[str, Any], loss_tokens: int) -> str:
  """CARD.md: the card for people.

  Args:
    card: What `make_card` gave.
    loss_tokens: Held-out tokens on which losses were measured.
  """
  columns = (*_SHOWN, "fvu_lost_by_int8")
  lines = [
    f"# {card['title']}",
    "",
    f"Written by `{card['recipe']['command']}`.",
    "",
    f"**Data.** {card['data']}",
    "",
    f"**Licence.** {card['licence']}",
    "",
    f"**Numbers**, on {card['held_out_tokens']:,} held-out tokens, losses on "
    f"some {loss_tokens:,} of them (nats a token). `dead`: latents that never "
    "fire on this text; `dense`: in more than a tenth of it.",
    "",
    f"| dictionary | {' | '.join(columns)} |",
    "|---" * (1 + len(columns)) + "|",
  ]
  for name, row in card["metrics"].items():
    cells = [f"{row.get(column, '')}" for column in columns]
    lines.append(f"| {name} | {' | '.join(cells)} |")
  lines += [
    "",
    "**Latents described by hand**, from their stored examples.",
    "",
  ]
  for name, latents in card["descriptions"].items():
    lines += [f"- {name}, {i}: {text}" for i, text in latents.items()]
  return "\n".join(lines) + "\n"


def _row(numbers: Mapping[str, Any], lost: float) -> dict[str, float]:
  """One row: numbers of the int8 rows, and what rounding costs in FVU."""
  row = {
    name: round(_value(numbers[name]), digits)
    for name, digits in _SHOWN.items()
    if name in numbers
  }
  return row | {"fvu_lost_by_int8": round(lost, 6)}


def _value(number: Any) -> float:
  return number[0] if isinstance(number, list) else number
