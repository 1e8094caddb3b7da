"""The fields that other tools read."""

import json

import pytest

from tests.viz.made_dashboard import make_dashboard

TEXTS = [" Mary", " had", " a", "\n", " lamb", ",", " its", " fleece"]


@pytest.fixture
def fields():
  return make_dashboard(TEXTS).to_neuronpedia()


def test_fields(fields):
  json.dumps(fields, allow_nan=False)
  assert fields["index"] == 4
  assert fields["layer"] == "starter/resid_post/layer_9"
  assert fields["pos_str"] == TEXTS
  assert len(fields["neg_values"]) == len(TEXTS)
  assert fields["neg_values"][0] == -fields["pos_values"][0] < 0
  assert fields["frac_nonzero"] == 0.004
  assert fields["freq_hist_data_bar_heights"] == [900, 0, 7]
  bars = fields["freq_hist_data_bar_values"]
  assert bars == sorted(bars)
  assert 32 < bars[0] < 45.3
  assert fields["topkCosSimIndices"] == [7, 9, 11]


def test_activations(fields):
  info = make_dashboard(TEXTS).info
  assert len(fields["activations"]) == len(info.examples)
  for entry, example in zip(fields["activations"], info.examples):
    assert entry["tokens"] == list(example.pieces)
    assert entry["maxValueTokenIndex"] == example.peak
    assert entry["values"][example.peak] == entry["maxValue"]
