"""One latent as one self-contained HTML page (see `page`).

All of it is written by the template: nothing waits for a script. It computes
no score.
"""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from gemma_scope import display
from gemma_scope.analysis.latent_info import ExampleText, LatentInfo
from gemma_scope.viz import features_wording, page, payload
from gemma_scope.viz.features_wording import amount

if TYPE_CHECKING:
  from gemma_scope.viz.dashboard import Dashboard

_SCRIPTS = ("base.js", "dashboard.js")
_STYLES = ("page.css", "parts.css", "features.css", "dashboard.css")


def dashboard_to_html(dashboard: "Dashboard") -> str:
  """Renders the page; a string that is written to a file as UTF-8."""
  info = dashboard.info
  fields = {
    "d": dashboard,
    "data": {},
    "address": features_wording.address(dashboard.site, info.index),
    "headline": headline(info),
    "largest": amount(info.maximum),
    "often": features_wording.frequency_phrase(info.frequency),
    "effects": [
      ("Raises", _effects(info.favoured), False),
      ("Lowers", _effects(info.disfavoured), True),
    ],
    "examples": [_example(e, info.maximum) for e in info.examples],
    "bars": histogram_bars(dashboard.histogram),
    "neighbours": _neighbours(dashboard),
    "numbers": numbers(dashboard),
    "manifest": page.flatten(payload.to_plain(dashboard.manifest)),
  }
  return page.render_page("dashboard.html.jinja", _SCRIPTS, _STYLES, fields)


def headline(info: LatentInfo) -> str:
  """The description; without one, what a latent's numbers say."""
  if info.description:
    return info.description
  if not info.examples:
    return "It was never active: nothing is known of it."
  peaks = [e.pieces[e.peak] for e in info.examples[:4]]
  listed = ", ".join(dict.fromkeys(map(features_wording.quoted, peaks)))
  return f"Nobody has described it. It is most active on {listed}."


def numbers(dashboard: "Dashboard") -> list[tuple[str, str]]:
  """Lengths and the like, as (name, text)."""
  g = dashboard.geometry
  found = [
    ("Length of what it reads along", amount(g.encoder_norm)),
    ("Length of what it writes", amount(g.decoder_norm)),
  ]
  if g.cosine is not None:
    found.append(("Cosine between both", f"{g.cosine:.3f}"))
  found.append(("Encoder bias", amount(g.bias)))
  if g.threshold is not None:
    found.append(("Threshold", amount(g.threshold)))
  for name, value in dashboard.metrics.items():
    shown = f"{value:.4g}" if isinstance(value, float) else str(value)
    found.append((f"Dictionary: {name.replace('_', ' ')}", shown))
  return found


def histogram_bars(
  histogram: tuple[tuple[float, float, int], ...],
) -> list[dict[str, Any]]:
  """Bars with heights on a logarithmic scale: counts span decades."""
  most = max((count for *_, count in histogram), default=1)
  top = math.log1p(most)
  return [
    {
      "from": amount(low),
      "to": amount(high),
      "count": count,
      "height": f"{100 * math.log1p(count) / top:.1f}",
    }
    for low, high, count in histogram
  ]


def _effects(effects: tuple[tuple[str, float], ...]) -> list[dict[str, Any]]:
  largest = display.largest(np.asarray([value for _, value in effects]))
  return [
    {
      "text": text,
      "value": f"{value:+#.3g}".replace("-", "−"),
      "width": f"{100 * abs(value) / largest:.1f}",
    }
    for text, value in effects
  ]


def _example(example: ExampleText, most: float) -> dict[str, Any]:
  """Tokens with the activation as a fraction of the largest of all."""
  return {
    "peak": amount(example.activations[example.peak]),
    "chips": [
      {
        "text": display.visible(piece) or "∅",
        "amount": f"{min(1.0, value / (most or 1)):.3f}",
        "value": amount(value) if value else "",
        "peak": i == example.peak,
      }
      for i, (piece, value) in enumerate(
        zip(example.pieces, example.activations)
      )
    ],
  }


def _neighbours(dashboard: "Dashboard") -> list[dict[str, Any]]:
  pairs = zip(dashboard.geometry.neighbours, dashboard.neighbours)
  return [
    {
      "index": index,
      "cosine": f"{cosine:.3f}",
      "width": f"{100 * max(0.0, min(1.0, cosine)):.1f}",
      "favours": [] if info is None else [t for t, _ in info.favoured[:4]],
      "told": None if info is None else info.description,
    }
    for (index, cosine), info in pairs
  ]
