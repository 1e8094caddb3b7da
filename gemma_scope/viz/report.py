"""The explanation as one self-contained HTML page (see `page`).

It computes no score.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gemma_scope import display
from gemma_scope.analysis import explanation as parts
from gemma_scope.analysis.flow import RelevanceFlow
from gemma_scope.viz import features_page, page, payload, wording

if TYPE_CHECKING:
  from gemma_scope.viz.explanation import Explanation

_SCRIPTS = (
  "base.js",
  "tokens.js",
  "flow.js",
  "features.js",
  "lens.js",
  "components.js",
  "attention.js",
)
_STYLES = ("page.css", "parts.css", "heatmap.css", "features.css")
_LONG_PROMPT = 420  # characters; the head of the page shows only the end
_STRONGEST = 12  # components listed under the chart


def explanation_to_html(explanation: "Explanation") -> str:
  """Renders the page; a string that is written to a file as UTF-8."""
  fields = {
    "e": explanation,
    "data": _data(explanation),
    "head": _head(explanation),
    "predictions": _prediction_rows(explanation),
    "strips": [_strip(explanation, a) for a in explanation.attributions],
    "flow": None if explanation.flow is None else _flow(explanation.flow),
    "features": _features(explanation),
    "components": _component_rows(explanation.components),
    "manifest": page.flatten(payload.to_plain(explanation.manifest)),
  }
  return page.render_page("report.html.jinja", _SCRIPTS, _STYLES, fields)


def _data(explanation: "Explanation") -> dict[str, Any]:
  """What the scripts draw."""
  data = payload.report_data(explanation)
  found = explanation.features
  data["features"] = None if found is None else features_page.page_data(found)
  return data


def _head(explanation: "Explanation") -> dict[str, Any]:
  """The prompt with its continuation, and the sentences of the headline."""
  prompt = _prose(explanation.prompt)
  cut = len(prompt) > _LONG_PROMPT
  top = explanation.predictions[0].text if explanation.predictions else ""
  evidence: tuple[str, ...] = ()
  if explanation.attributions:
    first = explanation.attributions[0]
    evidence = wording.evidence_sentences(explanation, first)
  return {
    "prompt": prompt[-_LONG_PROMPT:].partition(" ")[2] if cut else prompt,
    "whole": prompt,
    "cut": cut,
    "continuation": display.visible(top),
    "prediction": wording.prediction_sentence(explanation),
    "question": wording.question_sentence(explanation.target),
    "evidence": evidence,
    "components": wording.component_sentence(explanation.components),
    "target": wording.target_phrase(explanation.target),
  }


def _prose(text: str) -> str:
  """Text of several lines that cannot turn the direction of what follows."""
  return "\n".join(display.visible(line) for line in text.splitlines())


def _prediction_rows(explanation: "Explanation") -> list[dict[str, Any]]:
  """Rows of the table of predictions; bars relative to the strongest."""
  target = explanation.target
  marks = {target.against_id: "compared with", target.id: "explained"}
  largest = max((p.prob for p in explanation.predictions), default=1.0) or 1.0
  return [
    {
      "text": p.text,
      "id": p.id,
      "prob": p.prob,
      "logit": p.logit,
      "width": f"{100 * p.prob / largest:.2f}",
      "mark": marks.get(p.id, ""),
    }
    for p in explanation.predictions
  ]


def _strip(
  explanation: "Explanation", attribution: parts.TokenAttribution
) -> dict[str, Any]:
  """One method: its tokens with scores as fractions of the largest word's."""
  scores = np.asarray(attribution.scores, np.float64)
  words = [i for i, t in enumerate(explanation.tokens) if not t.special]
  scale = display.largest(scores[words])
  chips = []
  for token, score in zip(explanation.tokens, scores):
    fraction = float(np.clip(np.nan_to_num(score) / scale, -1, 1))
    chips.append(
      {
        "text": display.visible(token.text) or "∅",
        "special": token.special,
        "negative": fraction < 0,
        "amount": f"{abs(fraction):.3f}",
        "breaks": token.text.count("\n"),
      }
    )
  return {
    "attribution": attribution,
    "chips": chips,
    "scale": f"{scale:.3g}",
    "sums": wording.completeness_sentence(attribution),
    "area": wording.area_sentence(attribution, explanation.random_areas),
    "off": _misses(attribution),
  }


def _misses(attribution: parts.TokenAttribution) -> bool:
  """Whether the scores miss their total by more than a twentieth of it."""
  if attribution.total is None or attribution.residual is None:
    return False
  return abs(attribution.residual) > 0.05 * max(abs(attribution.total), 1e-6)


def _features(explanation: "Explanation") -> dict[str, Any] | None:
  if explanation.features is None:
    return None
  return features_page.section(explanation.features, explanation.tokens)


def _flow(flow: RelevanceFlow) -> dict[str, Any]:
  """The sentences and tables beside the map of relevance."""
  order = np.argsort(-np.abs(flow.heads), axis=None)[:_STRONGEST]
  places = [np.unravel_index(i, flow.heads.shape) for i in order]
  heads = [
    (f"z[{layer}] head {head}", float(flow.heads[layer, head]), None)
    for layer, head in places
  ]
  neurons = [
    (f"{n.label} neuron {n.index}", n.relevance, n.position)
    for n in flow.neurons[:_STRONGEST]
  ]
  return {
    "title": flow.title,
    "sums": wording.flow_sentence(flow),
    "rankings": [
      ("Attention heads", _bars(heads)),
      ("Neurons", _bars(neurons)),
    ],
  }


def _bars(
  rows: Sequence[tuple[str, float, int | None]],
) -> list[dict[str, Any]]:
  """Rows with the width of a bar on either side."""
  largest = display.largest(np.asarray([value for _, value, _ in rows]))
  return [
    {
      "label": label,
      "value": value,
      "position": position,
      "width": f"{50 * abs(value) / largest:.2f}",
      "negative": value < 0,
    }
    for label, value, position in rows
  ]


def _component_rows(components: parts.ComponentScores) -> list[dict[str, Any]]:
  """The strongest components."""
  strongest = wording.strongest_components(components, _STRONGEST)
  return _bars([(label, value, None) for label, value in strongest])
