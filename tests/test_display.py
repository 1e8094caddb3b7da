"""Blocks of HTML: hostile text stays text, colours and pictures are right."""

from html import parser
import re
import struct
import zlib

import numpy as np
import pytest

from gemma_scope import display, errors

HOSTILE = '</td><script>alert(1)</script><img src=x onerror="a">&\u202e\x1b'


class Elements(parser.HTMLParser):
  """Collects start tags and checks that tags close in order."""

  def __init__(self, text):
    super().__init__()
    self.found, self.open, self.text = [], [], ""
    self.feed(text)
    self.close()
    assert not self.open

  def handle_starttag(self, tag, attrs):
    self.found.append((tag, dict(attrs)))
    if tag not in ("br", "img"):
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.text += data

  def tags(self):
    return {tag for tag, _ in self.found}


BLOCKS = {
  "tokens": lambda t: display.tokens_html([t, " a"], [1.0, -0.5], t),
  "table": lambda t: display.table_html([t], [[t], [t]], t),
  "predictions": lambda t: display.predictions_html([(t, 0.4)], t),
  "matrix": lambda t: display.matrix_html(np.eye(2), [t, t], [t, t], t),
  "picture": lambda t: display.matrix_html(np.eye(50), title=t),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_hostile_text_stays_text(name):
  page = BLOCKS[name](HOSTILE)
  elements = Elements(page)
  assert "script" not in elements.tags()
  assert ("img" in elements.tags()) == (name == "picture")
  for _, attributes in elements.found:
    assert not any(key.startswith("on") for key in attributes)
  assert "alert(1)" in elements.text
  assert "\x1b" not in page
  assert "\u202e" not in page


@pytest.mark.parametrize(
  ("text", "shown"),
  [
    (" Mary", " Mary"),
    ("a\nb\t", "a↵b⇥"),
    ("\x1b[31m\x00", "␛[31m␀"),
    ("\x7f", "⟨U+007F⟩"),
    ("\u202eevil\u2066", "⟨U+202E⟩evil⟨U+2066⟩"),
    ("\ud83d", "⟨U+D83D⟩"),
    ("👩\u200d🚀", "👩\u200d🚀"),
    ("\u200d", "⟨U+200D⟩"),
    ("日本", "日本"),
    ("\u0304n", "◌\u0304n"),
    ("", ""),
  ],
)
def test_visible(text, shown):
  assert display.visible(text) == shown


def test_spaces_in_front_become_dots():
  assert display.visible(" Mary", spaces=True) == "·Mary"
  assert display.visible("  ", spaces=True) == "··"
  assert display.visible("a b", spaces=True) == "a b"


@pytest.mark.parametrize(
  ("value", "shown"),
  [
    (1.5, "+1.50"),
    (-0.2, "−0.20"),
    (-0.001, "0.00"),
    (0, "0.00"),
    (float("nan"), "not a number"),
    (float("-inf"), "-inf"),
  ],
)
def test_signed(value, shown):
  assert display.signed(value) == shown


@pytest.mark.parametrize(
  ("value", "shown"),
  [
    (0.631, "63.1%"),
    (0.0004, "<0.1%"),
    (0.0, "0.0%"),
    (0.9999, ">99.9%"),
    (1.0, "100.0%"),
  ],
)
def test_percent(value, shown):
  assert display.percent(value) == shown


def backgrounds(page):
  return re.findall(r"background:(rgba\([^)]*\))", page)


def test_colour_says_sign_and_amount():
  page = display.tokens_html(["a", "b", "c"], [2.0, -1.0, 0.0])
  assert backgrounds(page) == [
    "rgba(230,97,1,0.620)",
    "rgba(43,116,186,0.310)",
    "rgba(230,97,1,0.000)",
  ]
  assert "full colour: ±2" in page


def test_control_tokens_do_not_set_the_scale():
  page = display.tokens_html(["<bos>", "b"], [-50.0, 1.0], apart=[0])
  assert backgrounds(page)[1] == "rgba(230,97,1,0.620)"
  assert "full colour: ±1" in page


def test_newlines_break_the_strip():
  assert display.tokens_html(["a\n\n", "b"]).count("<br>") == 2


def test_numbers_of_a_table():
  page = display.table_html(["n", "t"], [[-1.23456789, "-x"]])
  assert "−1.235" in page
  assert "-x" in page


def test_a_matrix_without_signs_is_violet():
  page = display.matrix_html(np.array([[0.0, 0.5], [1.0, np.nan]]))
  assert backgrounds(page)[-1] == "rgba(112,76,182,0.620)"
  assert "0 to 1 · 2 rows, 2 columns" in page
  assert "nan" not in page


def test_a_large_matrix_becomes_a_picture():
  values = np.zeros((50, 60))
  values[0, 0], values[49, 59] = -2.0, 1.0
  page = display.matrix_html(values, title="pattern")
  (image,) = [a for tag, a in Elements(page).found if tag == "img"]
  assert image["alt"] == "pattern"
  data = display.base64.b64decode(image["src"].partition("base64,")[2])
  assert struct.unpack(">II", data[16:24]) == (60, 50)
  start = data.index(b"IDAT")
  (length,) = struct.unpack(">I", data[start - 4 : start])
  raw = zlib.decompress(data[start + 4 : start + 4 + length])
  rows = np.frombuffer(raw, np.uint8).reshape(50, 1 + 60 * 4)
  pixels = rows[:, 1:].reshape(50, 60, 4)
  assert tuple(pixels[0, 0]) == (*display.NEGATIVE, 255)
  assert tuple(pixels[49, 59]) == (*display.POSITIVE, 128)
  assert pixels[1, 1, 3] == 0


def test_empty_inputs_draw_nothing_and_do_not_fail():
  for page in (
    display.tokens_html([], []),
    display.table_html(["a"], []),
    display.predictions_html([]),
    display.matrix_html(np.zeros((0, 0))),
  ):
    Elements(page)


def test_only_a_matrix_is_a_heat_map():
  with pytest.raises(errors.GemmaScopeError, match="needs a matrix"):
    display.matrix_html(np.zeros(3))
