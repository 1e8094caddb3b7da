"""Explanations as plain JSON: whole for files, compact for the report.

Numbers keep 7 digits in files and 4 in the report; what is not finite becomes
null. Text is made encodable (lone surrogates of half a character become
U+FFFD), nothing is escaped: that is the template's part.
"""

import base64
from collections.abc import Iterable, Mapping
import dataclasses
import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from gemma_scope import display
from gemma_scope.analysis import explanation as parts
from gemma_scope.analysis.flow import RelevanceFlow

if TYPE_CHECKING:
  from gemma_scope.viz.explanation import Explanation

FORMAT = "gemma-scope/explanation"
VERSION = 1

_SURROGATE = re.compile("[\ud800-\udfff]")
_ADDRESS = re.compile(r"(?P<kind>\w+)(\[(?P<layer>\d+)\])?")


def explanation_to_dict(explanation: "Explanation") -> dict[str, Any]:
  """An explanation as JSON-able Python (see `Explanation.to_dict`)."""
  result: dict[str, Any] = {"format": FORMAT, "version": VERSION}
  for field in dataclasses.fields(explanation):
    result[field.name] = to_plain(getattr(explanation, field.name))
  for entry, value in zip(result["attributions"], explanation.attributions):
    entry.update(to_plain({"sum": value.sum, "residual": value.residual}))
  components = explanation.components
  result["components"].update(
    to_plain({"sum": components.sum, "residual": components.residual})
  )
  if explanation.attention is not None:
    result["attention"] = pack(explanation.attention)
  return result


def to_plain(value: Any, digits: int = 7) -> Any:
  """Turns nested dataclasses, arrays and scalars into JSON-able Python.

  Args:
    value: Any nesting of dataclasses, mappings, sequences, arrays and scalars;
      what JSON does not know becomes its `str`.
    digits: How many significant digits a float keeps.
  """
  if value is None or isinstance(value, bool | int):
    return value
  if isinstance(value, str):
    return encodable(value)
  if isinstance(value, float):
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None
  if isinstance(value, np.ndarray | np.generic):
    return to_plain(value.tolist(), digits)
  if dataclasses.is_dataclass(value):
    names = [field.name for field in dataclasses.fields(value)]
    return {name: to_plain(getattr(value, name), digits) for name in names}
  if isinstance(value, Mapping):
    return {str(k): to_plain(v, digits) for k, v in value.items()}
  if isinstance(value, Iterable):
    return [to_plain(item, digits) for item in value]
  return str(value)


def encodable(text: str) -> str:
  """Replaces lone surrogates, which no UTF-8 file can hold, by U+FFFD."""
  return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)


def pack(attention: parts.AttentionPatterns) -> dict[str, Any]:
  """Attention as base64 of its bytes, little-endian, in C order."""
  keys = attention.keys
  return {
    "encoding": "base64 of uint8; probability = (byte / 255)^2; keys uint16",
    "shape": list(attention.weights.shape),
    "axes": ["layer", "head", "query", "entry"],
    "queries": list(attention.queries),
    "kinds": list(attention.kinds),
    "weights": _base64(attention.weights.astype("u1")),
    "keys": None if keys is None else _base64(keys.astype("<u2")),
  }


def _base64(array: np.ndarray) -> str:
  return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def report_data(explanation: "Explanation") -> dict[str, Any]:
  """What the report's scripts draw: compact, with every text made visible."""
  tokens = explanation.tokens
  return {
    "tokens": [_label(token.text) for token in tokens],
    "texts": [display.visible(token.text) or "∅" for token in tokens],
    "special": [i for i, token in enumerate(tokens) if token.special],
    "target": {
      "label": _label(explanation.target.text),
      "position": explanation.target.position,
      "value": to_plain(explanation.target.value),
    },
    "attributions": [
      {"title": a.title, "scores": to_plain(a.scores, 4)}
      for a in explanation.attributions
    ],
    "flow": None if explanation.flow is None else _flow(explanation.flow),
    "lens": _lens(explanation.lens),
    "components": [
      {"label": label, **address(label), "value": to_plain(float(value), 5)}
      for label, value in zip(
        explanation.components.labels, explanation.components.values
      )
    ],
    "heads": to_plain(explanation.components.heads, 4),
    "attention": (
      None if explanation.attention is None else pack(explanation.attention)
    ),
  }


def _flow(flow: RelevanceFlow) -> dict[str, Any]:
  """What the heat map of relevance draws."""
  return {
    "labels": list(flow.labels),
    "values": to_plain(flow.values, 4),
    "sums": to_plain(flow.sums, 4),
    "target": to_plain(flow.target),
  }


def address(label: str) -> dict[str, Any]:
  """Splits `attn_write[3]` into kind and layer; no layer is None."""
  match = _ADDRESS.fullmatch(label)
  if match is None:
    return {"kind": label, "layer": None}
  layer = match["layer"]
  return {"kind": match["kind"], "layer": None if layer is None else int(layer)}


def _label(text: str) -> str:
  return display.visible(text, spaces=True)


def _lens(lens: parts.LensGrid) -> dict[str, Any]:
  """The grid with its words in one list and indices into it."""
  words: dict[str, int] = {}
  top = [
    [words.setdefault(_label(text), len(words)) for text in row]
    for row in lens.top_texts
  ]
  return {
    "labels": list(lens.labels),
    "positions": list(lens.positions),
    "words": list(words),
    "top": top,
    "top_probs": to_plain(lens.top_probs, 4),
    "target_probs": to_plain(lens.target_probs, 4),
    "target_ranks": to_plain(lens.target_ranks),
  }
