"""The page of a patching sweep: complete, self-contained, safe."""

from html import parser
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from gemma_scope.viz import patching_page

CORRUPT = ["<bos>", "When", " Mary", ",", " Mary", " to"]
CLEAN = ["<bos>", "When", " Mary", ",", " John", " to"]
HOSTILE = [
  "<bos>",
  "</script><script>alert(1)</script>",
  "{{ 7 * 7 }}",
  "\u202e",
]
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


class Page(parser.HTMLParser):
  """Elements, and the text of scripts and of all else."""

  def __init__(self, text):
    super().__init__()
    self.elements, self.scripts, self.text, self.open = [], [], "", ""
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    self.elements.append((tag, dict(attrs)))
    self.open = tag
    if tag == "script":
      self.scripts.append("")

  def handle_endtag(self, tag):
    self.open = ""

  def handle_data(self, data):
    if self.open == "script":
      self.scripts[-1] += data
    else:
      self.text += data


def test_the_page_says_what_was_found(patching):
  page = Page(patching(CORRUPT, CLEAN).to_html())
  text = re.sub(r"\s+", " ", page.text)
  assert "The strongest is resid_pre[5] at “to” (token 5)" in text
  assert "Measured is the logit of “Mary” minus that of “John”: +2.00" in text
  assert "what restores the answer?" in text
  marked = [tag for tag, _ in page.elements].count("mark")
  assert marked == 2  # the one token in which the prompts differ, twice
  rows = [a for t, a in page.elements if t == "code"]
  assert len(rows) == 2 * 5 + 2  # five of each kind, and two headings


def test_the_numbers_are_the_effects(patching):
  report = patching(CORRUPT, CLEAN)
  data = json.loads(Page(report.to_html()).scripts[0])
  assert [m["name"] for m in data["maps"]] == ["resid_pre", "z"]
  stream, heads = data["maps"]
  assert (stream["positions"], stream["heads"]) == (True, False)
  assert (heads["positions"], heads["heads"]) == (True, True)
  for found in data["maps"]:
    for layer, values in zip(found["layers"], found["values"]):
      site = f"{found['name']}[{layer}]"
      expected = np.asarray(report.sweep.effect()[site].data_array)[0]
      np.testing.assert_allclose(
        np.asarray(values).reshape(expected.shape), expected, rtol=1e-3
      )
  assert data["gap"] == 5
  assert data["base"][4] == "·Mary"
  assert data["source"][4] == "·John"


def test_noising_turns_the_question_round(patching):
  text = patching(CORRUPT, CLEAN, noising=True).to_html()
  assert "what breaks the answer?" in text
  assert "+2.00 after the corrupt one" in text
  assert "<em>needs</em>" in text


def test_hostile_tokens_stay_text(patching):
  text = patching(HOSTILE, ["<bos>", *HOSTILE[:0:-1]]).to_html()
  page = Page(text)
  assert len(page.scripts) == 2
  assert "{{ 7 * 7 }}" in page.text
  assert "\u202e" not in page.text
  assert "<" not in page.scripts[0]
  assert not re.search(
    r"(https?:)?//[\w.-]+\.\w+", text.replace("www.w3.org", "")
  )
  for tag, attributes in page.elements:
    assert tag not in ("link", "img", "iframe")
    assert "src" not in attributes
    assert not any(name.startswith("on") for name in attributes)


@pytest.mark.parametrize(
  ("value", "shown"),
  [(1.03, "103%"), (-0.5, "−50%"), (np.nan, "not a number"), (0.0, "0%")],
)
def test_shares(value, shown):
  assert patching_page.share(value) == shown


def test_a_sweep_of_nothing_has_a_sentence():
  assert patching_page.finding_sentence([]) == "No run was patched."


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
@pytest.mark.parametrize("name", ["plain", "hostile", "long"])
def test_a_browser_draws_it(name, patching, tmp_path):
  pieces, other = {
    "plain": (CORRUPT, CLEAN),
    "hostile": (HOSTILE, ["<bos>", *HOSTILE[:0:-1]]),
    "long": (CORRUPT * 10, CLEAN * 10),
  }[name]
  path = tmp_path / "report.html"
  path.write_text(patching(pieces, other).to_html(), encoding="utf-8")
  command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu"]
  command += ["--disable-background-networking", "--enable-logging=stderr"]
  command += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
  command += ["--virtual-time-budget=4000", path.as_uri()]
  done = subprocess.run(
    command, capture_output=True, text=True, timeout=120, check=True
  )
  assert "CONSOLE" not in done.stderr  # neither errors nor refused scripts
  page = Page(done.stdout)
  cells = [a for t, a in page.elements if t == "td" and "data-at" in a]
  assert len(cells) == 6 * (len(pieces) + 4)  # layers x (positions + heads)
