"""The card of the starter suite: data, recipe, licence, numbers, in JSON."""

from collections.abc import Mapping
from typing import Any

_SHOWN = {
  "l0": 1,
  "fvu": 4,
  "cosine": 3,
  "delta_loss": 4,
  "recovered": 3,
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
    metrics: "rounded" and "exact": name of a dictionary -> its numbers, those
      with an interval as [value, low, high]; "tokens" of held-out text.
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
      name: _row(numbers, metrics["exact"][name])
      for name, numbers in metrics["rounded"].items()
    },
    "descriptions": descriptions,
  }


def _row(
  numbers: Mapping[str, Any], exact: Mapping[str, Any]
) -> dict[str, float]:
  """One row: numbers of the int8 rows, and what rounding costs in FVU."""
  row = {
    name: round(_value(numbers[name]), digits)
    for name, digits in _SHOWN.items()
    if name in numbers
  }
  lost = _value(numbers["fvu"]) - _value(exact["fvu"])
  return row | {"fvu_lost_by_int8": round(lost, 6)}


def _value(number: Any) -> float:
  return number[0] if isinstance(number, list) else number
