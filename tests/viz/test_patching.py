"""From two prompts to a report, on a tiny model."""

import json

import numpy as np
import pytest

from gemma_scope import errors, testing
from gemma_scope.attribution import logit_difference
from gemma_scope.attribution.patching.sweep import patch
from gemma_scope.testing.tiny import tiny_config
from gemma_scope.viz.patching import patching_report

CLEAN, CORRUPT = " the capital of France is", " the capital of Rome is"
AT = ["resid_pre[:]"]


@pytest.fixture(scope="module")
def lm():
  return testing.tiny_lm(tiny_config(num_layers=2, window=4))


def test_a_report_is_the_sweep_with_its_question(lm):
  told = []
  report = patching_report(
    *(lm, CLEAN, CORRUPT),
    target=7,
    against=9,
    at=AT,
    progress=lambda *args: told.append(args),
  )
  sweep = patch(lm, CLEAN, CORRUPT, logit_difference(7, 9), at=AT)
  for site, value in report.sweep.items():
    np.testing.assert_array_equal(value.data_array, sweep[site].data_array)
  assert told[-1] == ("Patching", 1.0)
  found = report.to_dict()
  json.dumps(found, allow_nan=False)
  assert found["clean"] == CLEAN
  assert found["manifest"]["config"]["at"] == AT
  assert found["strongest"][0]["site"].startswith("resid_pre[")
  assert found["format"] == "gemma-scope/patching"
  assert "sandbox" in report._repr_html_()
  assert "PatchingReport('Measured is" in repr(report)


def test_noising_exchanges_the_runs(lm):
  report, other = (
    patching_report(
      *(lm, CLEAN, CORRUPT), target=7, against=9, at=AT, noising=noising
    )
    for noising in (True, False)
  )
  np.testing.assert_allclose(report.sweep.source, other.sweep.base, rtol=1e-5)
  start = other.question.partition(". One")[0]
  assert report.question.startswith(start)  # clean is clean, either way


def test_answers_are_found_where_none_are_named(lm):
  from gemma_scope.analysis.predict import predict

  (first,), (second,) = predict(lm, [CLEAN, CORRUPT], k=1).rows
  if first.id == second.id:
    with pytest.raises(errors.TextError, match="Both prompts have the same"):
      patching_report(lm, CLEAN, CORRUPT, at=AT)
    report = patching_report(lm, CLEAN, CORRUPT, against=9, at=AT)
  else:
    report = patching_report(lm, CLEAN, CORRUPT, at=AT)
    assert report.against == second.text
  assert report.target == first.text


def test_one_answer_to_both_prompts_is_refused(lm):
  with pytest.raises(errors.TextError, match=r"--target, --against"):
    patching_report(lm, CLEAN, CLEAN, at=AT)
