"""The report: intervals, paired differences, JSON, and what it refuses."""

import json

import numpy as np
import pytest

from gemma_scope.errors import ConfigError
from gemma_scope.evals.agreement import agreement
from gemma_scope.evals.report import FaithfulnessReport
from gemma_scope.evals.scores import Cost

rng = np.random.default_rng(0)
BASE = rng.normal(size=20)
SCORES = {"good": rng.normal(size=(20, 5))}


@pytest.fixture
def report():
  return FaithfulnessReport(
    values={
      "good": {"abpc": BASE + 1, "morf": BASE - 1},
      "random": {"abpc": BASE, "morf": BASE},
    },
    better={"abpc": "high", "morf": "low"},
    baselines=("random",),
    cost={"good": Cost(0.25, 3.0)},
    agreement=agreement(SCORES, np.ones((20, 5), bool)),
    scores=SCORES,
    config={"model": "none"},
  )


def test_numbers(report):
  assert report.n == 20
  np.testing.assert_allclose(report.interval("good").mean, BASE.mean() + 1)
  found = report.difference("good", "random")
  np.testing.assert_allclose([found.low, found.high], 1)
  assert report.best() == "good"
  assert report.best("morf") == "good"


def test_table_says_which_way_is_better(report):
  head, rows = report.table()
  assert head == ["method", "abpc ↑", "morf ↓", "forwards", "seconds"]
  assert rows[0][-2:] == ["3.0", "0.250"]
  assert rows[1][-2:] == ["", ""]
  assert "20 prompts" in report._repr_html_()
  assert "n=20" in repr(report)


def test_json(report):
  found = json.loads(json.dumps(report.to_dict(), allow_nan=False))
  assert found["numbers"]["good"]["abpc"]["n"] == 20
  assert found["values"]["random"]["morf"] == BASE.tolist()


@pytest.mark.parametrize("asked", [("bad", "abpc"), ("good", "area")])
def test_unknown_numbers(report, asked):
  with pytest.raises(ConfigError, match="no such number"):
    report.interval(*asked)
