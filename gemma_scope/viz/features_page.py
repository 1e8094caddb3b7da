"""Latents on the page of an explanation: tables, and what the script draws.

It computes no score.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gemma_scope import display
from gemma_scope.analysis.explanation import TokenInfo
from gemma_scope.analysis.latent_info import LatentInfo
from gemma_scope.analysis.mlp_parts import MlpParts, strongest_parts
from gemma_scope.analysis.prompt_latents import NOTHING, ActiveLatents
from gemma_scope.viz import features_wording, payload
from gemma_scope.viz.features import Features

_LISTED = 4  # latents of each layer in the table
_OF_MLPS = 10  # latents of all feed-forwards in the table


def key(dictionary: str, index: int) -> str:
  """What a latent is found by in the page's data."""
  return f"{dictionary}#{index}"


def section(features: Features, tokens: Sequence[TokenInfo]) -> dict[str, Any]:
  """What the template shows of an explanation's latents."""
  return {
    "suite": features.suite,
    "title": features.title,
    "layers": [_quality(layer) for layer in features.layers],
    "quality": features_wording.quality_sentence(features.layers),
    "poor": any(map(features_wording.is_poor, features.layers)),
    "rows": _rows(features, tokens),
    "mlps": [_mlp(part, features) for part in features.mlps],
    "writers": _writers(features),
    "cut": features.first,
  }


def _quality(layer: ActiveLatents) -> dict[str, Any]:
  """How well one dictionary describes the prompt, and who carries what."""
  row = {
    "site": layer.site,
    "number": layer.site.partition("[")[2].rstrip("]"),
    "l0": f"{layer.l0:.1f}",
    "fvu": features_wording.share(layer.fvu),
    "held_out": features_wording.held_out_share(layer) or "not known",
    "poor": features_wording.is_poor(layer),
  }
  parts = (layer.totals, layer.explained, layer.bias)
  told = [float(p[layer.counted].sum()) for p in parts if p is not None]
  if len(told) == len(parts):
    whole, latents, bias = told
    row |= {"whole": whole, "latents": latents, "bias": bias}
    row["error"] = whole - latents - bias
  return row


def _rows(
  features: Features, tokens: Sequence[TokenInfo]
) -> list[dict[str, Any]]:
  """The latents of each layer that carry most; bars share one scale."""
  found = [
    (layer, *row) for layer in features.layers for row in layer.ranked(_LISTED)
  ]
  sizes = np.asarray([_size(*row[3:]) for row in found])
  largest = display.largest(sizes)
  return [
    {
      "key": key(layer.dictionary, index),
      "site": layer.site,
      "index": index,
      "position": features.first + token,
      "token": tokens[features.first + token].text,
      "activation": activation,
      "relevance": None if np.isnan(relevance) else relevance,
      "width": f"{50 * abs(size) / largest:.2f}",
      "negative": size < 0,
      "favours": _favours(features.info(layer.dictionary, index)),
    }
    for (layer, index, token, activation, relevance), size in zip(found, sizes)
  ]


def _size(activation: float, relevance: float) -> float:
  return activation if np.isnan(relevance) else relevance


def _favours(info: LatentInfo | None) -> list[str]:
  return [] if info is None else [text for text, _ in info.favoured[:3]]


def _mlp(part: MlpParts, features: Features) -> dict[str, Any]:
  """One feed-forward: its parts, and its strongest latents."""
  return {
    "label": part.label,
    "total": part.total,
    "latents": part.latents,
    "skip": part.skip,
    "rest": part.bias + part.error,
    "active": part.active,
    "strongest": [
      {
        "key": key(part.dictionary, index),
        "index": index,
        "contribution": contribution,
        "favours": _favours(features.info(part.dictionary, index)),
      }
      for index, _, contribution in part.strongest[:3]
    ],
  }


def _writers(features: Features) -> list[dict[str, Any]]:
  """The latents of all feed-forwards that wrote most."""
  found = strongest_parts(features.mlps, _OF_MLPS)
  largest = display.largest(np.asarray([row[3] for row in found]))
  return [
    {
      "key": key(part.dictionary, index),
      "site": part.label,
      "index": index,
      "relevance": contribution,
      "width": f"{50 * abs(contribution) / largest:.2f}",
      "negative": contribution < 0,
      "favours": _favours(features.info(part.dictionary, index)),
    }
    for part, index, _, contribution in found
  ]


def page_data(features: Features) -> dict[str, Any]:
  """What the page's script draws: compact, with every text made visible."""
  words: dict[str, int] = {}
  return {
    "first": features.first,
    "title": features.title,
    "layers": [_layer(layer) for layer in features.layers],
    "infos": {
      key(info.dictionary, info.index): _info(info, words)
      for info in features.infos
    },
    "words": list(words),
  }


def _layer(layer: ActiveLatents) -> dict[str, Any]:
  """[index, activation, relevance] of the latents shown at each token."""
  told = layer.relevance
  rows = []
  for t, indices in enumerate(layer.indices):
    there = indices != NOTHING
    columns = [indices[there].tolist()]
    columns.append(payload.to_plain(layer.activations[t, there], 4))
    if told is not None:
      columns.append(payload.to_plain(told[t, there], 3))
    rows.append([list(row) for row in zip(*columns)])
  return {
    "name": layer.dictionary,
    "site": layer.site,
    "rows": rows,
    "counts": layer.counts.tolist(),
    "totals": payload.to_plain(layer.totals, 4),
    "explained": payload.to_plain(layer.explained, 4),
  }


def _info(info: LatentInfo, words: dict[str, int]) -> dict[str, Any]:
  def word(text: str, spaces: bool = True) -> int:
    shown = display.visible(text, spaces=spaces)
    return words.setdefault(shown or "∅", len(words))

  return {
    "up": [[word(t), payload.to_plain(v, 3)] for t, v in info.favoured],
    "down": [[word(t), payload.to_plain(v, 3)] for t, v in info.disfavoured],
    "examples": [
      {
        "pieces": [word(piece, spaces=False) for piece in example.pieces],
        "values": payload.to_plain(np.asarray(example.activations), 3),
        "peak": example.peak,
      }
      for example in info.examples
    ],
    "often": features_wording.frequency_phrase(info.frequency),
    "most": payload.to_plain(info.maximum, 4),
    "told": info.description,
  }
