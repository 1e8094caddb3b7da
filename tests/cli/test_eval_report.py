"""What was found as JSON, page and tables, whichever part was asked for."""

import pathlib
import types

import pytest

from gemma_scope.bootstrap import Interval
from gemma_scope.cli import eval_report
from gemma_scope.cli.eval_report import Found
from gemma_scope.evals.dictionaries.concept_evaluation import ConceptEvaluation
from gemma_scope.evals.dictionaries.targeted import Targeted
from gemma_scope.manifest import make_manifest

LONG = "folder/" * 12 + "[b]sae"
TEXT = types.SimpleNamespace(
  table=lambda: (["dictionary", "l0"], [["ours", "8.5"]]),
  note="9 tokens",
  to_dict=lambda: {"tokens": 9},
  _repr_html_=lambda: "<p>numbers</p>",
)


@pytest.fixture(scope="module")
def concepts():
  half = {k: Interval(0.5, 0.4, 0.6, 9) for k in (1, 2, 5, 10, 20)}
  found = Targeted("TPP of it", {LONG: half, "neurons": half})
  manifest = make_manifest({})
  return ConceptEvaluation({"z[0]": {"tpp": {"it": found}}}, manifest)


def test_json_has_what_was_asked_for(concepts):
  assert Found(text=TEXT).to_dict() == {"tokens": 9}
  assert list(Found(concepts=concepts).to_dict()) == ["concepts"]
  both = Found(TEXT, concepts).to_dict()
  assert both["tokens"] == 9
  assert "z[0]" in both["concepts"]["sites"]


def test_the_page_has_both(concepts):
  page = Found(TEXT, concepts).to_html()
  assert page.startswith("<!doctype html>")
  assert page.index("<p>numbers</p>") < page.index("TPP of it")
  assert "TPP" not in Found(text=TEXT).to_html()


def test_tables_keep_every_number_beside_long_names(concepts, capsys):
  eval_report.render(Found(TEXT, concepts), pathlib.Path("page.html"))
  out = capsys.readouterr().out
  for text in ("l0  8.5", "9 tokens", "at z[0], it", "k = 20", "page.html"):
    assert text in " ".join(out.split()) or text in out
  assert out.count("0.500") == 10
  assert "[b]sae" in out.replace("\n", "").replace(" ", "")
