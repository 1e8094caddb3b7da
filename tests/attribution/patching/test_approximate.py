"""The entrance: convergence to exact patching, batches, errors, real text."""

import functools

import jax
import numpy as np
import pytest

from gemma_scope import errors
from gemma_scope.attribution import gradients, logit_difference
from gemma_scope.attribution.composites import GRADIENT
from gemma_scope.attribution.patching import approximate, question
from gemma_scope.attribution.patching.approximate import (
  METHODS,
  approximate_patching,
)
from gemma_scope.attribution.patching.question import EstimateOptions
from gemma_scope.sites import resolve
from tests.attribution.patching.patch_checks import (
  cells_of,
  exact_effects,
  exact_in_one_batch,
  near_lm,
  other_prompt,
)

WANTED = logit_difference(7, 9)
AT = ("resid_pre[1]", "key[0]", "query[1]", "mlp_write[0]")
# The path through activations has no single position of its own.
CASES = {
  "attribution_patching": EstimateOptions(),
  "integrated_gradients": EstimateOptions(steps=4),
  "atp_star": EstimateOptions(grad_drop=False),
  "relp": EstimateOptions(rules=GRADIENT),
}


@pytest.fixture(scope="module")
def near(double):
  """A source prompt close to the base, and the exact effects of its cells."""
  source = other_prompt(double.ids)
  lm = near_lm(double.lm, source, double.ids, 0.005)
  exact = {}
  for site in resolve(AT, 2):
    heads = range(2) if len(site.info.axes) == 4 else (None,)
    cells = [(p, h) if h is not None else (p,) for p in (2, 5) for h in heads]
    found = exact_effects(lm, source, double.ids, WANTED, site, cells)
    exact[site] = (cells, found)
  return lm, source, exact


def test_every_method_is_tried():
  assert set(CASES) == set(METHODS)


@pytest.mark.parametrize("method", CASES)
def test_a_small_change_is_patched_exactly(double, near, method):
  lm, source, exact = near
  found = approximate_patching(
    lm,
    source,
    double.ids,
    WANTED,
    method=method,
    at=AT,
    options=CASES[method],
  )
  for site, (cells, expected) in exact.items():
    ours = np.asarray([cells_of(found, site)[cell] for cell in cells])
    size = np.abs(expected).max()
    assert size > 1e-5
    # What is left is of second order: it shrinks with the step.
    np.testing.assert_allclose(ours, expected, atol=0.05 * size)


def test_pairs_have_the_estimates_they_have_alone(double):
  source = [" the capital of France is", " Mary and John"]
  base = [" the city of France is", " John and Mary"]
  target = logit_difference([7, 8], 9)
  both = approximate_patching(double.lm, source, base, target, at=AT)
  for row, token in enumerate((7, 8)):
    alone = approximate_patching(
      double.lm,
      [source[row]] * 2,
      [base[row]] * 2,
      logit_difference(token, 9),
      at=AT,
    )
    np.testing.assert_allclose(both.base[row], alone.base[0], rtol=1e-5)
    for site in both:
      one = cells_of(alone, site)
      value = np.asarray(both[site].data_array)[row]
      np.testing.assert_allclose(value[: len(one)], one, atol=1e-5)
      assert not value[len(one) :].any()


def test_another_prompt_compiles_nothing_again(double, caplog):
  def ask(source, base, wanted):
    return approximate_patching(double.lm, source, base, wanted, at=AT)

  ask(" Mary and John", " John and Mary", logit_difference(7, 9))
  with jax.log_compiles(), caplog.at_level("WARNING"):
    ask(" the city is", " the France is", logit_difference(3, 4))
  names = ("slopes", "values_at", "effects")
  compiled = [r.getMessage() for r in caplog.records]
  assert not [
    m for m in compiled if "Compiling" in m and any(n in m for n in names)
  ]


STEPPED = {  # with several batches each
  "attribution_patching": EstimateOptions(),
  "atp_star": EstimateOptions(),
  "inputs": EstimateOptions(steps=3),
  "activations": EstimateOptions(steps=3, path="activations"),
}


@pytest.mark.parametrize("case", STEPPED)
def test_progress_grows_to_one_and_changes_nothing(double, case, monkeypatch):
  some_pairs = functools.partial(question.groups, tokens=32)
  monkeypatch.setattr(approximate, "groups", some_pairs)
  monkeypatch.setattr(gradients, "STEP_TOKENS", 32)
  texts = [" Mary and John", " John and Mary", " the city"]
  seen = []
  ask = functools.partial(
    approximate_patching,
    *(double.lm, texts, [texts[1], texts[0], " city and"], WANTED),
    method=case if case in METHODS else "integrated_gradients",
    at=("resid_pre[:]", "z[1]"),
    options=STEPPED[case],
  )
  told = ask(progress=lambda label, share: seen.append((label, share)))
  labels, shares = zip(*seen)
  assert set(labels) == {"Estimating"}
  assert shares[0] < 1
  assert shares[-1] == 1
  assert list(shares) == sorted(shares)
  if case != "attribution_patching":
    assert len(set(shares)) > 3
  for site, value in ask().items():
    np.testing.assert_array_equal(value.data_array, told[site].data_array)


def test_wrong_questions_are_refused(double):
  def ask(source=" Mary", base=" John", at=AT, **options):
    return approximate_patching(double.lm, source, base, 7, at=at, **options)

  with pytest.raises(errors.ConfigError, match="method='atp_star'"):
    ask(method="atp-star")
  with pytest.raises(errors.SiteError, match="before the logits"):
    ask(at=["logits"])
  with pytest.raises(errors.SiteError, match="before the logits"):
    ask(at=[])
  with pytest.raises(errors.TextError, match="same number of tokens"):
    ask(base=" the capital of France is")


CLEAN = "When Mary and John went to the store, John gave a drink to"
CORRUPT = "When Mary and John went to the store, Mary gave a drink to"


@pytest.mark.real
def test_relevance_patching_beats_gradients_on_real_text(real_lm):
  target = logit_difference(" Mary", " John")
  at = ("resid_pre[::3]", "mlp_write[::3]")
  columns = (10, 14)  # the name that differs, and the last token
  sites = resolve(at, real_lm.config.num_layers)
  cells = [(site, column) for site in sites for column in columns]
  exact = exact_in_one_batch(real_lm, CLEAN, CORRUPT, target, cells)
  found = {}
  for method in ("attribution_patching", "relp"):
    estimate = approximate_patching(
      real_lm, CLEAN, CORRUPT, target, method=method, at=at
    )
    assert estimate.source[0] > 3
    assert estimate.base[0] < -2
    found[method] = [cells_of(estimate, s)[column] for s, column in cells]
  # For the feed-forwards one cell, mlp_write[3] at the name, decides this.
  for name in ("resid_pre", "mlp_write"):
    chosen = [site.name == name for site, _ in cells]
    gradient, relevance = (
      np.corrcoef(np.asarray(values)[chosen], exact[chosen])[0, 1]
      for values in found.values()
    )
    assert relevance > 0.7, (name, relevance)
    assert relevance > gradient + 0.2, (name, gradient)
