"""Latents in a terminal."""

import io

from rich import console as rich_console

from gemma_scope.viz import features_terminal
from tests.viz.made_features import make_features


def write(features, tokens, width=90):
  file = io.StringIO()
  console = rich_console.Console(file=file, width=width)
  features_terminal.render(features, tokens, console)
  return file.getvalue()


def test_two_of_each_layer(explanation):
  text = write(explanation.features, explanation.tokens)
  assert "latents, by relevance, AttnLRP" in text
  for layer in explanation.features.layers:
    for index, *_ in layer.ranked(2):
      assert f"{layer.site} {index} " in text
  assert text.count("resid_post[9] ") == 2 + 1
  assert "(27.4%)" in text


def test_without_relevance_activations_stand_there(explanation):
  bare = make_features(explanation.tokens, relevance=False)
  text = write(bare, explanation.tokens)
  assert "by activation" in text
  best = bare.layers[0].ranked(1)[0]
  assert f"{best[2]:.4g}" in text


def test_narrow_terminals_hold_it(explanation):
  text = write(explanation.features, explanation.tokens, width=50)
  assert max(map(len, text.splitlines())) <= 50
