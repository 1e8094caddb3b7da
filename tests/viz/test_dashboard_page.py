"""The page of one latent: complete without scripts, safe, small."""

import re

import pytest

from gemma_scope.viz import dashboard_page as lib
from tests.viz.made_dashboard import make_dashboard
from tests.viz.test_report import HOSTILE, Page

TEXTS = [" Mary", " had", " a", "\n", " lamb", ",", " its", " fleece"]


@pytest.fixture
def page():
  return Page(make_dashboard(TEXTS).to_html())


def test_every_part_is_there(page):
  ids = {a["id"] for _, a in page.elements if "id" in a}
  assert ids >= {"examples", "activations", "effects", "neighbours", "manifest"}
  links = {a["href"][1:] for tag, a in page.elements if tag == "a"}
  assert links <= ids
  text = re.sub(r"\s+", " ", page.text)
  assert "names of people" in text
  assert "resid_post[9].latents[4]" in text
  assert "1 token in 250" in text
  assert "250,000 tokens" in text
  assert "Dictionary: fvu0.274" in text
  chips = [a for _, a in page.elements if "t" in a.get("class", "").split()]
  assert len(chips) == 3 * len(TEXTS)
  assert "--v:" in chips[0]["style"]


def test_nothing_comes_from_outside():
  text = make_dashboard(TEXTS).to_html()
  assert "://" not in text.replace("http://www.w3.org", "")
  assert len(text) < 100_000


def test_hostile_tokens_stay_text():
  text = make_dashboard(HOSTILE, description=HOSTILE[1]).to_html()
  page = Page(text)
  assert len(page.scripts) == 2
  assert not [t for t, _ in page.elements if t == "img"]
  for _, attributes in page.elements:
    assert not any(name.startswith("on") for name in attributes)
  assert "\u202e" not in page.text


def test_dead_latents_have_a_page():
  page = Page(make_dashboard(TEXTS, index=3).to_html())
  text = re.sub(r"\s+", " ", page.text)
  assert "It was never active" in text
  assert "a dead latent, or one for other texts" in text
  assert "Nothing was counted." in text


def test_headlines():
  told = make_dashboard(TEXTS, description="a sheep")
  assert lib.headline(told.info) == "a sheep"
  plain = make_dashboard(TEXTS, index=5)
  assert lib.headline(plain.info) == (
    "Nobody has described it. It is most active on “lamb”."
  )


def test_bars_are_logarithmic():
  bars = lib.histogram_bars(((1.0, 2.0, 999), (2.0, 4.0, 0), (4.0, 8.0, 30)))
  heights = [float(bar["height"]) for bar in bars]
  assert heights[:2] == [100.0, 0.0]
  assert heights[2] == pytest.approx(49.7, abs=0.1)
  assert lib.histogram_bars(()) == []
