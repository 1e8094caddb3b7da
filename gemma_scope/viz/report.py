"""The explanation as one self-contained HTML page.

The page asks the network for nothing and cannot: style, scripts and data are
inside it, and its content security policy allows no other (the scripts by
their hash). What can be read without scripts is written by the template; the
grids and patterns are drawn by the scripts from data embedded as JSON. It
computes no score.
"""

import base64
from collections.abc import Mapping
import functools
import hashlib
import importlib.resources
from typing import TYPE_CHECKING, Any

import jinja2
import markupsafe
import numpy as np

from gemma_scope import display
from gemma_scope.analysis import explanation as parts
from gemma_scope.viz import payload, wording

if TYPE_CHECKING:
  from gemma_scope.viz.explanation import Explanation

_SCRIPTS = (
  "base.js",
  "tokens.js",
  "lens.js",
  "components.js",
  "attention.js",
)
_STYLES = ("page.css", "parts.css")
_LONG_PROMPT = 420  # characters; the head of the page shows only the end
_STRONGEST = 12  # components listed under the chart


def explanation_to_html(explanation: "Explanation") -> str:
  """Renders the page; a string that is written to a file as UTF-8."""
  script = "\n".join(map(_asset, _SCRIPTS))
  return _template().render(
    e=explanation,
    script=markupsafe.Markup(script),
    script_hash=_content_hash(script),
    style=markupsafe.Markup("\n".join(map(_asset, _STYLES))),
    dark=markupsafe.Markup(_asset("dark.css")),
    data=payload.report_data(explanation),
    head=_head(explanation),
    predictions=_prediction_rows(explanation),
    strips=[_strip(explanation, a) for a in explanation.attributions],
    components=_component_rows(explanation.components),
    manifest=_flatten(payload.to_plain(explanation.manifest)),
  )


@functools.cache
def _template() -> jinja2.Template:
  environment = jinja2.Environment(
    loader=jinja2.FunctionLoader(_asset),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  environment.filters["signed"] = display.signed
  environment.filters["percent"] = display.percent
  environment.filters["visible"] = display.visible
  environment.filters["label"] = functools.partial(display.visible, spaces=True)
  return environment.get_template("report.html.jinja")


@functools.cache
def _asset(name: str) -> str:
  folder = importlib.resources.files("gemma_scope.viz") / "templates"
  return (folder / name).read_text("utf-8")


def _content_hash(script: str) -> str:
  """The script as the content security policy names it.

  The template puts a newline before and after the script.
  """
  digest = hashlib.sha256(f"\n{script}\n".encode()).digest()
  return f"sha256-{base64.b64encode(digest).decode()}"


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
    "off": _misses(attribution),
  }


def _misses(attribution: parts.TokenAttribution) -> bool:
  """Whether the scores miss their total by more than a twentieth of it."""
  if attribution.total is None or attribution.residual is None:
    return False
  return abs(attribution.residual) > 0.05 * max(abs(attribution.total), 1e-6)


def _component_rows(components: parts.ComponentScores) -> list[dict[str, Any]]:
  """The strongest components with the width of a bar on either side."""
  largest = display.largest(components.values)
  return [
    {
      "label": label,
      "value": value,
      "width": f"{50 * abs(value) / largest:.2f}",
      "negative": value < 0,
    }
    for label, value in wording.strongest_components(components, _STRONGEST)
  ]


def _flatten(value: Any, path: str = "") -> list[tuple[str, str]]:
  """Nested JSON as (dotted path, text) rows."""
  if isinstance(value, Mapping) and value:
    return [
      row
      for key, inner in value.items()
      for row in _flatten(inner, f"{path}.{key}" if path else str(key))
    ]
  if isinstance(value, list):
    value = ", ".join(map(str, value))
  empty = value is None or value in ("", {})
  return [(path, "none" if empty else display.visible(str(value)))]
