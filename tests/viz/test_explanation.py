"""The value that displays itself: checks, notebook frame, short repr."""

import dataclasses
from html import parser

import numpy as np
import pytest

from gemma_scope import errors


def test_repr_is_short_and_says_what_it_is(explanation):
  text = repr(explanation)
  assert len(text) < 300
  assert "“Mary” (63.1%)" in text
  assert "integrated_gradients" in text


def test_a_notebook_gets_the_page_in_a_frame(explanation):
  frames = []

  class Frames(parser.HTMLParser):
    def handle_starttag(self, tag, attrs):
      frames.append((tag, dict(attrs)))

  Frames().feed(explanation._repr_html_())
  ((tag, attributes),) = frames
  assert tag == "iframe"
  assert attributes["srcdoc"] == explanation.to_html()
  # Scripts run, but reach neither the notebook nor its cookies.
  assert attributes["sandbox"] == "allow-scripts"


def test_scores_that_do_not_fit_the_prompt_are_refused(explanation):
  short = dataclasses.replace(explanation.attributions[0], scores=np.zeros(3))
  with pytest.raises(errors.GemmaScopeError, match="every token of the prompt"):
    dataclasses.replace(explanation, attributions=(short,))


@pytest.mark.parametrize("position", [-1, 15])
def test_positions_outside_the_prompt_are_refused(explanation, position):
  target = dataclasses.replace(explanation.target, position=position)
  with pytest.raises(errors.GemmaScopeError, match="lies outside the prompt"):
    dataclasses.replace(explanation, target=target)
