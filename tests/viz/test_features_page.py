"""Latents on the page: what the template and the script are given."""

import json

import numpy as np
import pytest

from gemma_scope.analysis.prompt_latents import NOTHING
from gemma_scope.viz import features_page as lib
from tests.viz.made_features import make_features


@pytest.fixture
def features(explanation):
  return explanation.features


def test_the_strongest_of_each_layer(features, explanation):
  section = lib.section(features, explanation.tokens)
  rows = section["rows"]
  assert len(rows) == 2 * 4
  for layer in features.layers:
    own = [r for r in rows if r["site"] == layer.site]
    best = layer.ranked(4)
    assert [r["index"] for r in own] == [j for j, *_ in best]
    assert [r["relevance"] for r in own] == [s for *_, s in best]
    assert own[0]["token"] == explanation.tokens[best[0][1]].text
  assert max(float(r["width"]) for r in rows) == pytest.approx(50)
  assert all(r["negative"] == (r["relevance"] < 0) for r in rows)


def test_relevance_adds_up(features, explanation):
  section = lib.section(features, explanation.tokens)
  for row, layer in zip(section["layers"], features.layers):
    assert (row["site"], row["fvu"]) == (layer.site, "31.0%")
    assert (row["l0"], row["held_out"]) == ("17.0", "27.4%")
    whole = float(layer.totals[layer.counted].sum())
    assert row["whole"] == pytest.approx(whole)
    assert row["bias"] == pytest.approx(0.05 * layer.counted.sum())
    parts = row["latents"] + row["bias"] + row["error"]
    assert parts == pytest.approx(whole)
  assert not section["poor"]


def test_feed_forwards_add_up(features, explanation):
  for row in lib.section(features, explanation.tokens)["mlps"]:
    parts = row["latents"] + row["skip"] + row["rest"]
    part = next(p for p in features.mlps if p.label == row["label"])
    expected = part.latents + part.skip + part.bias + part.error
    assert parts == pytest.approx(expected)


def test_without_relevance_bars_are_activations(explanation):
  bare = make_features(explanation.tokens, relevance=False)
  rows = lib.section(bare, explanation.tokens)["rows"]
  assert all(row["relevance"] is None for row in rows)
  assert max(float(row["width"]) for row in rows) == pytest.approx(50)


def test_the_script_gets_every_latent_and_what_is_known(features):
  data = lib.page_data(features)
  json.dumps(data, allow_nan=False)
  for given, layer in zip(data["layers"], features.layers):
    assert given["site"] == layer.site
    for t, rows in enumerate(given["rows"]):
      there = layer.indices[t] != NOTHING
      assert [r[0] for r in rows] == layer.indices[t, there].tolist()
      np.testing.assert_allclose(
        [r[2] for r in rows], layer.relevance[t, there], rtol=1e-2
      )
      for index, *_ in rows:
        assert lib.key(layer.dictionary, index) in data["infos"]
  info = features.infos[0]
  shown = data["infos"][lib.key(info.dictionary, info.index)]
  words = [data["words"][w] for w, _ in shown["up"]]
  assert words[0].strip("·") == info.favoured[0][0].strip()
  assert len(shown["examples"]) == len(info.examples)
  assert shown["most"] == info.maximum


def test_tokens_of_long_prompts_count_from_the_first_shown(long_explanation):
  found = long_explanation.features
  assert found.first > 0
  section = lib.section(found, long_explanation.tokens)
  assert section["cut"] == found.first
  for row in section["rows"]:
    assert row["position"] >= found.first
    assert row["token"] == long_explanation.tokens[row["position"]].text
