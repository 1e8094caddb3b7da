"""A latent in the fields that SAEDashboard writes and Neuronpedia reads.

    pos_str, pos_values, neg_str, neg_values     tokens raised and lowered
    frac_nonzero                                 frequency
    freq_hist_data_bar_values, …_heights         histogram of activations
    activations [{tokens, values, maxValue, maxValueTokenIndex}]
    topkCosSimIndices, topkCosSimValues          latents that point alike

Bars stand in the middle of half octaves. What is not computed here, such as
histograms of all logits, is left out.
"""

import math
from typing import TYPE_CHECKING, Any

from gemma_scope.analysis.latent_info import ExampleText
from gemma_scope.viz.payload import to_plain

if TYPE_CHECKING:
  from gemma_scope.viz.dashboard import Dashboard


def dashboard_to_neuronpedia(dashboard: "Dashboard") -> dict[str, Any]:
  """One feature as JSON-able Python."""
  info, geometry = dashboard.info, dashboard.geometry
  bars = dashboard.histogram
  fields = {
    "modelId": dashboard.model,
    "layer": info.dictionary,
    "index": info.index,
    "description": info.description,
    "frac_nonzero": info.frequency,
    "maxActApprox": info.maximum,
    "pos_str": [text for text, _ in info.favoured],
    "pos_values": [value for _, value in info.favoured],
    "neg_str": [text for text, _ in info.disfavoured],
    "neg_values": [value for _, value in info.disfavoured],
    "freq_hist_data_bar_values": [math.sqrt(a * b) for a, b, _ in bars],
    "freq_hist_data_bar_heights": [count for *_, count in bars],
    "topkCosSimIndices": [j for j, _ in geometry.neighbours],
    "topkCosSimValues": [value for _, value in geometry.neighbours],
    "activations": [_example(example) for example in info.examples],
  }
  return to_plain(fields)


def _example(example: ExampleText) -> dict[str, Any]:
  return {
    "tokens": list(example.pieces),
    "values": list(example.activations),
    "maxValue": example.activations[example.peak],
    "maxValueTokenIndex": example.peak,
  }
