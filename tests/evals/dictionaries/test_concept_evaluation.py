"""What looking for concepts shows: means over sets, JSON, one page."""

import json

import pytest

from gemma_scope.bootstrap import Interval
from gemma_scope.evals.dictionaries.concept_evaluation import (
  ConceptEvaluation,
  mean_over,
)
from gemma_scope.evals.dictionaries.targeted import Targeted
from gemma_scope.manifest import make_manifest

NAN = float("nan")


def result(what, ours, neurons):
  by_k = {"<ours>": {1: ours}, "neurons": {1: neurons}}
  found = {
    name: {k: Interval(v, v, v, 4) for k, v in own.items()}
    for name, own in by_k.items()
  }
  return Targeted(what, found)


@pytest.fixture(scope="module")
def made():
  tpp = {"a": result("TPP of a", 0.5, 0.1), "b": result("TPP of b", 0.3, 0.2)}
  shift = {"a": result("SHIFT to a", NAN, 0.25)}
  sites = {"z[0]": {"tpp": tpp}, "resid_post[1]": {"shift": shift}}
  return ConceptEvaluation(sites, make_manifest({}, seed=3))


def test_a_mean_is_over_the_sets_that_have_the_number():
  found = mean_over([{"a": {"x": 1.0, "y": 4.0}}, {"a": {"x": 2.0}, "b": {}}])
  assert found == {"a": {"x": 1.5, "y": 4.0}}


def test_each_site_and_test_has_a_table_of_means(made):
  tpp, shift = made.summaries()
  assert tpp.title.endswith("(TPP) at z[0], mean over 2 sets of texts")
  assert tpp.head == ["representation", "k = 1"]
  assert tpp.rows == [["<ours>", "0.400"], ["neurons", "0.150"]]
  assert shift.title.endswith("(SHIFT) at resid_post[1], a")
  assert shift.rows == [["<ours>", "nan"], ["neurons", "0.250"]]
  assert "neurons, 0.150" in repr(made)


def test_json_has_means_and_every_set(made):
  found = json.loads(json.dumps(made.to_dict(), allow_nan=False))
  tpp = found["sites"]["z[0]"]["tpp"]
  assert tpp["means"]["<ours>"]["k = 1"] == pytest.approx(0.4)
  assert tpp["texts"]["b"]["found"]["neurons"]["1"]["mean"] == 0.2
  shift = found["sites"]["resid_post[1]"]["shift"]
  assert shift["means"]["<ours>"]["k = 1"] is None
  assert found["manifest"]["seed"] == 3


def test_the_page_has_every_table(made):
  page = made.to_html()
  assert page.startswith("<!doctype html>")
  for text in ("mean over 2 sets", "TPP of b", "texts at resid_post[1]"):
    assert text in page
  assert "&lt;ours&gt;" in page
  assert made.note in page
