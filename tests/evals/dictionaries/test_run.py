"""Losses through dictionaries: from a layer on, or as one whole pass."""

import dataclasses

import jax
import numpy as np
import pytest

import gemma_scope as gs
from gemma_scope import surgery
from gemma_scope.evals.dictionaries import run as runs
from gemma_scope.evals.dictionaries.run import Marked, Run, make_probe, nameless
from gemma_scope.testing import dictionaries as make
from tests.evals.dictionaries.conftest import KINDS

EVERY = ("sae", "affine transcoder", "affine clt", "crosscoder")


def make_run(case, *dictionaries, losses=True):
  return Run(make_probe(case.lm, dictionaries, losses), case.batch)


def nll(lm, model, batch):
  """From all logits of an edited model, by `gs.capture`."""
  found = gs.capture(
    lm.replace(model), batch.ids, ["logits"], segment_ids=batch.segment_ids
  )["logits"].unwrap("batch", "seq", "vocabulary")
  logs = jax.nn.log_softmax(np.asarray(found, np.float64), axis=-1)
  following = np.roll(batch.ids, -1, axis=1)
  return -np.take_along_axis(np.asarray(logs), following[:, :, None], 2)[..., 0]


@pytest.mark.parametrize("kind", EVERY)
def test_where_all_counts_the_error_is_dropped_everywhere(case, kind):
  """`surgery.splice` with "drop", and no mask at all."""
  batch = dataclasses.replace(case.batch, counted=case.batch.segment_ids != 0)
  dictionary = case.dictionaries[kind]
  probe = make_probe(case.lm, [dictionary], True)
  run = Run(probe, batch)
  dropped = surgery.splice(case.lm.model, [dictionary], error="drop")
  here = np.asarray(run.predicts)
  found = np.asarray(run.spliced(dictionary))
  np.testing.assert_allclose(
    found[here], nll(case.lm, dropped, batch)[here], atol=2e-4
  )


def test_by_hand_with_a_capture_and_a_substitution(case):
  """What the dictionary makes of captured values, put back as numbers."""
  sae = case.dictionaries["sae"]
  (site,), batch = sae.sites_in, case.batch
  acts = gs.capture(case.lm, batch.ids, [site], segment_ids=batch.segment_ids)[
    site
  ]
  value = acts.unwrap("batch", "seq", "embedding")
  made = np.where(batch.counted[..., None], sae(value), value)
  put = gs.surgery.edit(
    case.lm.model,
    site,
    lambda old: type(old)(old.named_axes, made.astype(np.float32)),
  )
  run = make_run(case, sae)
  here = np.asarray(run.predicts)
  np.testing.assert_allclose(
    np.asarray(run.spliced(sae))[here],
    nll(case.lm, put, batch)[here],
    atol=2e-4,
  )
  clean = nll(case.lm, case.lm.model, batch)
  np.testing.assert_allclose(
    np.asarray(run.clean())[here], clean[here], atol=2e-4
  )


@pytest.mark.parametrize("layer", [1, 6])
def test_a_scanned_stack_is_entered_in_the_middle(tiny_lm, case, layer):
  sae = make.random_sae(layer=layer)
  batch = dataclasses.replace(case.batch, counted=case.batch.segment_ids != 0)
  run = Run(make_probe(tiny_lm, [sae], True), batch)
  dropped = surgery.splice(tiny_lm.model, [sae], error="drop")
  here = np.asarray(run.predicts)
  np.testing.assert_allclose(
    np.asarray(run.spliced(sae))[here],
    nll(tiny_lm, dropped, batch)[here],
    atol=2e-4,
  )


def test_predictions_are_between_tokens_that_count():
  """Of one document, also where two adjoin without BOS between them."""
  rng = np.random.default_rng(0)
  segments = np.sort(rng.integers(0, 4, (5, 12)), axis=1)
  counted = (segments != 0) & (rng.random((5, 12)) < 0.8)
  found = np.asarray(runs._predicting(segments, counted))
  for r, row in enumerate(segments):
    for t in range(12):
      inside = (
        t + 1 < 12
        and counted[r, t]
        and counted[r, t + 1]
        and row[t] == row[t + 1]
      )
      assert found[r, t] == inside


def test_without_losses_no_layer_behind_is_run(case):
  probe = make_probe(case.lm, [case.dictionaries["affine clt"]], False)
  assert probe.tapped.stack.stop == 2
  assert {s.name for s in probe.sites} == {"mlp_in", "mlp_write"}
  whole = make_probe(case.lm, [case.dictionaries["sae"]], True)
  assert whole.tapped.stack.stop == 4
  assert "resid_pre[2]" in map(str, whole.sites)


def test_ablations_are_run_once_for_all_dictionaries(case, monkeypatch):
  run = make_run(case, case.dictionaries["sae"])
  sites = case.dictionaries["sae"].sites_out
  first = run.ablated(sites, "mean")
  monkeypatch.setattr(runs, "next_token_nll", None)
  assert run.ablated(sites, "mean") is first


def test_a_name_makes_no_other_program():
  one = make.random_sae()
  about = dataclasses.replace(one.about, name="x", l0=3.0, model="m")
  other = one.with_about(about)
  same = [jax.tree.structure(nameless(d)) for d in (one, other)]
  assert same[0] == same[1]
  assert nameless("no dictionary") == "no dictionary"


def test_marks_are_the_positions(case):
  marks = case.batch.counted
  np.testing.assert_array_equal(Marked(marks).mask(None), marks)


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_are_those_of_a_capture(case, kind):
  dictionary = case.dictionaries[kind]
  run = make_run(case, dictionary, losses=False)
  site = dictionary.sites_out[-1]
  acts = gs.capture(
    case.lm, case.batch.ids, [site], segment_ids=case.batch.segment_ids
  )[site]
  expected = np.asarray(acts.unwrap(*site.info.axes))
  np.testing.assert_allclose(
    run.value(site), expected.reshape(3, 16, -1), atol=1e-5
  )
