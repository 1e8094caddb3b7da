"""What an evaluation shows: tables, JSON, HTML, differences."""

import json

import numpy as np
import pytest

from gemma_scope.errors import ConfigError
from gemma_scope.evals.dictionaries.evaluation import Evaluated, page_html
from gemma_scope.evals.dictionaries.protocol import Findings
from gemma_scope.evals.dictionaries.ratio import Ratio


def test_the_table_has_a_row_for_each(case):
  head, rows = case.found.table()
  assert head[:3] == ["dictionary", "l0", "fvu"]
  assert [row[0] for row in rows] == list(case.dictionaries)
  interval = case.found["sae"].interval("fvu")
  shown = f"{interval.mean:.4f} [{interval.low:.4f}, {interval.high:.4f}]"
  assert rows[0][2] == shown
  assert f"{case.found['sae']['dead']:.1%}" in rows[0]
  text = repr(case.found)
  assert shown in text
  assert f"{case.found.tokens} tokens in 3 rows" in text


def test_json_has_everything_but_long_arrays(case):
  found = json.loads(json.dumps(case.found.to_dict(), allow_nan=False))
  assert found["tokens"] == case.batch.counted.sum()
  assert found["manifest"]["config"]["metrics"]["density"]["dense_above"] == 0.1
  one = found["dictionaries"]["sae"]
  assert one["about"] == str(case.dictionaries["sae"].about)
  assert one["numbers"]["fvu"]["n"] == 3
  assert one["numbers"]["dead"] == case.found["sae"]["dead"]
  assert list(one["curves"]["fvu by prefix"]) == ["8", "32", "64"]
  assert sum(one["histograms"]["density histogram"]) <= 64
  assert "density" not in one["histograms"]


def test_html_is_whole_and_escaped(case):
  shown = case.found._repr_html_()
  for word in ("sae top_k of z", "fvu by prefix", "log10", "nearest other"):
    assert word in shown
  page = case.found.to_html()
  assert page.startswith("<!doctype html>")
  assert shown in page
  assert "&lt;b&gt;" in page_html("<b>", "")


def test_a_difference_is_paired(case):
  found = case.found.difference("sae", "affine transcoder", "l0")
  a, b = (case.found[n].ratio("l0") for n in ("sae", "affine transcoder"))
  assert found == a.minus(b)
  assert found.mean == pytest.approx(a.value - b.value)


def test_names_that_are_not_there(case):
  with pytest.raises(ConfigError, match="No dictionary of this name"):
    case.found["none"]
  with pytest.raises(ConfigError, match="No such number"):
    case.found["sae"].interval("dead")
  assert case.found["sae"].cell("none") == ""


def test_two_metrics_of_one_number_are_refused():
  one = Findings({"l0": Ratio(np.ones(2), np.ones(2))})
  with pytest.raises(ConfigError, match="the same name"):
    Evaluated.joined("", [one, one])
  assert Evaluated.joined("it", [one])["l0"] == 1
