"""One pass for all: what is taken, what is refused, when it stops."""

import dataclasses
import itertools
import sys

import numpy as np
import pytest

from gemma_scope import errors
from gemma_scope.activations.corpus.packed_batch import PackedBatch
from gemma_scope.evals import dictionaries as evals
from gemma_scope.evals.dictionaries import run as runs
from gemma_scope.testing import dictionaries as make

FAST = (evals.L0(), evals.Fvu())


def named(dictionary, name):
  about = dataclasses.replace(dictionary.about, name=name)
  return dictionary.with_about(about)


@pytest.fixture
def passes(monkeypatch):
  """Counts forward passes."""
  seen = []
  forward = runs._forward

  def counting(model, ids, segment_ids):
    seen.append(ids.shape)
    return forward(model, ids, segment_ids)

  monkeypatch.setattr(runs, "_forward", counting)
  return seen


def test_the_model_runs_once_for_all(case, passes):
  saes = {f"sae {seed}": make.random_sae(layer=2, seed=seed) for seed in (0, 1)}
  several = saes | {"of another layer": case.dictionaries["affine transcoder"]}
  found = evals.evaluate(case.lm, several, case.batch, metrics=evals.METRICS)
  assert passes == [case.batch.ids.shape]
  assert found["sae 0"]["fvu"] != found["sae 1"]["fvu"]
  alone = case.found["affine transcoder"]
  for name in ("fvu", "delta_loss", "zero_loss"):
    assert found["of another layer"][name] == pytest.approx(
      alone[name], abs=1e-5
    )


def test_names(case):
  first, second = (make.random_sae(layer=2, seed=s) for s in (0, 1))
  names = [named(first, "ours"), second, second, named(second, "ours")]
  found = evals.evaluate(case.lm, names, case.batch, metrics=FAST[:1])
  about = str(second.about)
  assert list(found) == ["ours", about, f"{about} (2)", "ours (2)"]
  assert found["ours (2)"]["l0"] == found[about]["l0"] != found["ours"]["l0"]
  (only,) = evals.evaluate(case.lm, first, case.batch, metrics=FAST[:1])
  assert only == str(first.about)


def test_it_stops_at_enough_tokens(case):
  sae = make.random_sae(layer=2)
  told = []
  found = evals.evaluate(
    case.lm,
    sae,
    itertools.repeat(case.batch),  # no more is read than is needed
    metrics=(evals.L0(), evals.Fvu(most_tokens=case.batch.num_counted)),
    tokens=int(case.batch.counted.sum()) + 1,
    progress=lambda label, share: told.append((label, share)),
  )
  assert found.tokens == 2 * case.batch.counted.sum()
  assert found.rows == 6
  (one,) = found.values()
  assert one.ratio("l0").num_rows == 6
  assert one.ratio("fvu").num_rows == 3
  assert [share for _, share in told] == [pytest.approx(35 / 36), 1.0]
  assert "tokens" in told[0][0]


def test_many_latents_take_fewer_rows_at_once(case, passes, monkeypatch):
  module = sys.modules[evals.evaluate.__module__]
  monkeypatch.setattr(module, "_LATENTS_AT_ONCE", 2 * 64 * 16)
  sae = make.random_sae(layer=2)
  evals.evaluate(case.lm, sae, case.batch, metrics=FAST)
  assert passes == [(2, 16)] * 2
  clt = make.random_cross_layer(count=2)
  evals.evaluate(case.lm, clt, case.batch, metrics=FAST)
  assert passes[2:] == [(1, 16)] * 3


@pytest.mark.parametrize(
  ("make_one", "error", "message"),
  [
    (lambda: make.random_sae(d=31), errors.SiteError, "have 32 numbers"),
    (lambda: make.random_sae(layer=7), errors.SiteError, "does not have"),
    (
      lambda: make.random_sae("batch_top_k", layer=1),
      errors.ConfigError,
      "tokens beside it",
    ),
    (lambda: {}, errors.ConfigError, "no dictionary"),
  ],
)
def test_what_cannot_be_evaluated(case, make_one, error, message):
  with pytest.raises(error, match=message):
    evals.evaluate(case.lm, make_one(), case.batch, metrics=FAST)


def test_sites_behind_the_layers_are_refused(case):
  sae = make.random_sae(site="final_norm", layer=None)
  with pytest.raises(errors.SiteError, match="inside decoder layers"):
    evals.evaluate(case.lm, sae, case.batch, metrics=FAST)


def test_text_without_a_token_is_refused(case):
  none = PackedBatch(
    case.batch.ids, case.batch.segment_ids, np.zeros((3, 16), bool)
  )
  with pytest.raises(errors.TextError, match="no token that counts"):
    evals.evaluate(case.lm, make.random_sae(layer=2), none, metrics=FAST)
