"""Many targets in one pass are as many passes with one."""

import numpy as np
import pytest

from gemma_scope import errors
from gemma_scope.attribution import lrp, many
from gemma_scope.attribution.attribute import attribute
from gemma_scope.attribution.many import attribute_many
from gemma_scope.attribution.objectives import (
  activation,
  log_prob,
  logit,
  logit_difference,
)
from gemma_scope.attribution.relevance import relevance
from gemma_scope.testing import programs

PROMPTS = [" Mary and John gave a drink", " the capital of"]
AT = ("embed", "z[1]", "resid_post[:]")
KINDS = {
  "attn_lrp": (logit(" Paris"), logit(" Rome", position=1)),
  "cp_lrp": (
    logit_difference(" Paris", " Rome"),
    logit_difference(" Rome", " John", position=(1, -1)),
  ),
  "input_x_gradient": (log_prob(" Paris"), log_prob(" Rome", position=0)),
}


@pytest.mark.parametrize("method", KINDS)
def test_each_is_as_if_it_were_alone(double, method, monkeypatch):
  monkeypatch.setattr(many, "TARGETS_AT_ONCE", 2)
  targets = KINDS[method]
  found = attribute_many(double.lm, PROMPTS, targets, method=method, at=AT)
  assert len(found) == len(targets)
  for target, ours in zip(targets, found):
    alone = attribute(double.lm, PROMPTS, target, method=method, at=AT)
    assert list(ours) == list(alone)
    assert (ours.method, ours.pieces) == (alone.method, alone.pieces)
    np.testing.assert_allclose(ours.target, alone.target, rtol=1e-5)
    for site in alone:
      a, b = (np.asarray(x[site].data_array) for x in (ours, alone))
      scale = np.abs(b).max()
      np.testing.assert_allclose(a / scale, b / scale, atol=1e-5)


def test_a_table_is_a_method_and_promises_what_it_can(double):
  targets = [" Paris", " Rome", " John"]
  table = lrp.CP_LRP.at("mlp[1]", {"weights": lrp.Gamma(0.5)})
  found = attribute_many(double.lm, PROMPTS, targets, method=table, at=AT)
  assert {a.method for a in found} == {"CP_LRP"}
  assert all(np.isnan(a.residual()).all() for a in found)
  told = []
  conserved = attribute_many(
    double.lm,
    PROMPTS,
    targets,
    method="cp_lrp",
    at=AT,
    progress=lambda label, share: told.append((label, share)),
  )
  assert told == [("Attributing", 1.0)]
  for attribution in conserved:
    rest = attribution.residuals()
    for site in attribution:
      if site.name == "z":  # a head is not all there is
        assert np.isnan(rest[site]).all()
      else:
        np.testing.assert_allclose(rest[site], 0, atol=1e-5)


def test_what_lies_behind_a_target_promises_nothing(double):
  (found,) = attribute_many(
    double.lm,
    PROMPTS,
    [activation("mlp_act[0]", {"neurons": 3})],
    method="cp_lrp",
    at=("embed", "resid_mid[:]"),
  )
  rest = {str(site): value for site, value in found.residuals().items()}
  np.testing.assert_allclose(rest["embed"], 0, atol=1e-5)
  np.testing.assert_allclose(rest["resid_mid[0]"], 0, atol=1e-5)
  assert np.isnan(rest["resid_mid[1]"]).all()


def test_the_forward_pass_is_shared(double):
  lm = double.lm
  batch, rows, resolved = many._ask_all(lm, PROMPTS, [logit(5), logit(9)])
  del batch
  sites = tuple(many.checked_sites(AT, lm.config.num_layers))

  def products(count):
    columns = many._stacked([r.columns for r in rows[:count]])
    targets = many._stacked(resolved[:count])
    f = lambda model: many.relevances(  # noqa: E731
      model, rows[0], columns, targets, sites, lrp.CP_LRP
    )
    found = programs.operations(f, lm.model)
    return programs.count(found, "dot_general")

  alone = programs.count(
    programs.operations(
      lambda m: relevance(m, rows[0], resolved[0], sites, lrp.CP_LRP), lm.model
    ),
    "dot_general",
  )
  # A second target makes products wider, not more.
  assert products(1) == products(2) <= alone


def test_another_target_does_not_compile_again(double):
  attribute_many(double.lm, PROMPTS, [" Paris", " Rome"])
  before = many.relevances._cache_size()
  attribute_many(double.lm, PROMPTS, [" John", " Mary"])
  assert many.relevances._cache_size() == before


@pytest.mark.parametrize(
  ("targets", "options", "error", "match"),
  [
    ([], {}, errors.ConfigError, r"one kind.*\n.*0 targets \(none\)"),
    (
      [logit(5), log_prob(5)],
      {},
      errors.ConfigError,
      r"LogProbTarget, LogitTarget\) of 2 kinds",
    ),
    (
      [logit(5), logit_difference(5, 6)],
      {},
      errors.ConfigError,
      "one call for each kind",
    ),
    (
      [logit(5)],
      {"method": "integrated_gradients"},
      errors.ConfigError,
      r"method of one backward pass.*\n.*integrated.*\n.*method='attn_lrp'",
    ),
    ([logit(5)], {"at": ["logits"]}, errors.SiteError, "what explains"),
    ([logit(5, position=9)], {}, errors.TextError, "no token at the target"),
  ],
)
def test_bad_input_is_refused(double, targets, options, error, match):
  with pytest.raises(error, match=match):
    attribute_many(double.lm, PROMPTS, targets, **options)
