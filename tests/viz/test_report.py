"""The page: self-contained, safe with hostile tokens, complete, small."""

import base64
import dataclasses
import hashlib
from html import parser
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from gemma_scope.analysis import explanation as parts

HOSTILE = [
  "<bos>",
  "</script><script>alert(1)</script>",
  "<img src=x onerror=alert(2)>",
  '" onmouseover="alert(3)',
  "<!--",
  "{{ 7 * 7 }}",
  "\ud83d",
  "\u2028\x00\x1b\u202e",
  " العربية",
  "",
]
VOID = {"meta", "br", "input", "img", "link"}
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


class Page(parser.HTMLParser):
  """The elements, the text of scripts and all other text of a page."""

  def __init__(self, text):
    super().__init__()
    self.elements, self.scripts, self.text = [], [], ""
    self.open = []
    self.feed(text)
    self.close()
    assert not self.open, self.open

  def handle_starttag(self, tag, attrs):
    self.elements.append((tag, dict(attrs)))
    if tag == "script":
      self.scripts.append("")
    if tag not in VOID:
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    if self.open and self.open[-1] == "script":
      self.scripts[-1] += data
    else:
      self.text += data

  def data(self):
    return json.loads(self.scripts[0])


@pytest.fixture
def hostile(make):
  evil = make(HOSTILE, layers=7, target=HOSTILE[1], against=HOSTILE[2])
  note = dataclasses.replace(
    evil.attributions[0], title=HOSTILE[2], notes=(HOSTILE[1],)
  )
  return dataclasses.replace(
    evil,
    model=HOSTILE[2],
    attributions=(note,),
    manifest={HOSTILE[1]: HOSTILE[2], "list": [HOSTILE[2]], "empty": {}},
  )


def test_nothing_comes_from_outside(explanation):
  page = explanation.to_html()
  assert not re.search(
    r"(https?:)?//[\w.-]+\.\w+", page.replace("www.w3.org", "")
  )
  for tag, attributes in Page(page).elements:
    assert tag not in ("link", "img", "iframe", "object", "base", "form")
    assert "src" not in attributes
    assert not any(name.startswith("on") for name in attributes)
    assert attributes.get("href", "#").startswith("#")
  assert "@import" not in page
  assert "url(#hatch)" in page
  assert page.count("url(") == 1


def test_only_its_own_script_may_run(explanation):
  page = Page(explanation.to_html())
  (policy,) = [
    attributes["content"]
    for tag, attributes in page.elements
    if attributes.get("http-equiv") == "Content-Security-Policy"
  ]
  assert policy.startswith("default-src 'none';")
  digest = hashlib.sha256(page.scripts[1].encode()).digest()
  assert f"'sha256-{base64.b64encode(digest).decode()}'" in policy
  assert "script-src 'unsafe" not in policy


def test_hostile_tokens_stay_text(hostile):
  text = hostile.to_html()
  text.encode("utf-8")
  page = Page(text)
  assert len(page.scripts) == 2
  assert not [t for t, _ in page.elements if t == "img"]
  for _, attributes in page.elements:
    assert not any(name.startswith("on") for name in attributes)
  assert "alert(2)" in page.text
  assert "{{ 7 * 7 }}" in page.text
  assert "\u202e" not in page.text
  assert page.data()["tokens"][1] == HOSTILE[1]
  assert "<" not in page.scripts[0]


def test_every_part_is_on_the_page(explanation):
  page = Page(explanation.to_html())
  ids = {a["id"] for _, a in page.elements if "id" in a}
  sections = ("predictions", "tokens", "flow", "features", "lens")
  assert ids >= {*sections, "components", "attention", "manifest"}
  links = {a["href"][1:] for tag, a in page.elements if tag == "a"}
  assert links <= ids
  assert "continues with “Mary” (63.1%)" in page.text
  assert page.text.count("How to read this") == 7
  assert "weights.sha256" in page.text
  assert "Sums to" in page.text
  chips = [a for t, a in page.elements if "t" in a.get("class", "").split()]
  assert len(chips) == 2 * len(explanation.tokens)
  assert chips[2]["style"] == "--v:1.000"
  assert "special" in chips[0]["class"]
  assert "neg" in chips[4]["class"]


def test_the_data_is_what_was_given(explanation):
  data = Page(explanation.to_html()).data()
  np.testing.assert_allclose(
    data["attributions"][0]["scores"],
    explanation.attributions[0].scores,
    rtol=1e-3,
  )
  np.testing.assert_allclose(
    data["lens"]["target_probs"], explanation.lens.target_probs, rtol=1e-3
  )
  assert data["attention"]["shape"] == [18, 4, 15, 15]
  assert data["components"][2]["kind"] == "mlp_write"


def test_every_id_the_scripts_ask_for_exists(explanation):
  page = Page(explanation.to_html())
  ids = {a["id"] for _, a in page.elements if "id" in a}
  asked = set(re.findall(r'byId\("([\w-]+)"\)', page.scripts[1]))
  assert len(asked) > 15
  assert asked <= ids


def test_parts_may_be_absent(explanation):
  bare = dataclasses.replace(
    explanation,
    attention=None,
    features=None,
    features_note="No features here.",
    attributions=(),
    predictions=(),
    components=dataclasses.replace(explanation.components, heads=None),
  )
  page = Page(bare.to_html())
  ids = {a["id"] for _, a in page.elements if "id" in a}
  assert "attention" not in ids
  assert "heads" not in ids
  assert page.data()["attention"] is None
  assert "features" not in ids
  assert page.data()["features"] is None
  assert "No features here." in page.text


def test_scores_that_are_no_numbers_are_shown_as_such(explanation):
  scores = np.full(len(explanation.tokens), np.nan)
  odd = dataclasses.replace(
    explanation,
    attributions=(parts.TokenAttribution("m", "M", "d", scores, total=1.0),),
  )
  page = Page(odd.to_html())
  assert page.data()["attributions"][0]["scores"][0] is None
  assert "not a number" in page.text


def test_scores_that_miss_their_total_are_flagged(explanation):
  first = explanation.attributions[0]
  missed = dataclasses.replace(first, total=first.sum * 1.2)
  for attribution, flagged in ((first, False), (missed, True)):
    changed = dataclasses.replace(explanation, attributions=(attribution,))
    text = Page(changed.to_html()).text
    assert ("miss their total" in text) == flagged


def test_reports_stay_small(explanation, long_explanation):
  assert len(explanation.to_html()) < 300_000
  assert len(long_explanation.to_html()) < 3_500_000


def test_long_prompts_show_their_end_first(long_explanation):
  text = Page(long_explanation.to_html()).text
  assert "Whole prompt, 2609 characters" in text
  assert "the page keeps the strongest" in re.sub(r"\s+", " ", text)


def dump(explanation, folder):
  """The page's elements after a browser has run its scripts, and its log."""
  path = folder / "report.html"
  path.write_text(explanation.to_html(), encoding="utf-8")
  command = [
    CHROMIUM,
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--enable-logging=stderr",
    f"--user-data-dir={folder / 'profile'}",
    "--window-size=1280,900",
    "--virtual-time-budget=4000",
    "--dump-dom",
    path.as_uri(),
  ]
  done = subprocess.run(
    command, capture_output=True, text=True, timeout=120, check=True
  )
  return Page(done.stdout), done.stderr


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
@pytest.mark.parametrize("name", ["explanation", "long_explanation", "hostile"])
def test_a_browser_draws_it(name, request, tmp_path):
  explanation = request.getfixturevalue(name)
  page, log = dump(explanation, tmp_path)
  assert "CONSOLE" not in log  # neither errors nor refused scripts
  cells = [a for t, a in page.elements if t == "td" and "data-at" in a]
  columns = min(len(explanation.tokens), 32)
  of_lens = columns * len(explanation.lens.labels)
  assert len(cells) == of_lens + explanation.flow.values.size
  heads = [a for t, a in page.elements if "data-head" in a]
  assert len(heads) == explanation.components.heads.size
  assert [t for t, _ in page.elements].count("svg") == 2
  assert not [t for t, _ in page.elements if t == "img"]
  assert "looks at" in page.text
