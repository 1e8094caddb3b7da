import numpy as np
import pytest

from gemma_scope import errors
from gemma_scope.activations.run import capture
from gemma_scope.attribution import gradients
from gemma_scope.attribution.attribute import attribute
from gemma_scope.attribution.methods.leave_one_out import (
  LeaveOneOutOptions,
  target_deleted,
)
from gemma_scope.attribution.objectives import activation, logit
from gemma_scope.sites import Site
from gemma_scope.testing.tiny import tiny_config
from tests.attribution.conftest import make_double


def run(lm, given, target, how="delete", at="embed"):
  return attribute(
    lm,
    given,
    target,
    method="leave_one_out",
    at=at,
    options=LeaveOneOutOptions(how),
  )


def scores(result):
  return np.asarray(result.per_token().data_array)


@pytest.mark.parametrize("position", [-1, 3])
def test_deleting_is_running_the_shorter_prompt(double, position, monkeypatch):
  monkeypatch.setattr(gradients, "STEP_TOKENS", 2 * len(double.ids))
  token = double.lm.tokenizer.token_id(" Paris")
  n = len(double.ids)
  column = position % n
  found = scores(run(double.lm, double.ids, logit(token, position)))[0]
  top = double.value({token: 1.0}, position=column)
  for t in range(n):
    expected = 0.0
    if t <= column:
      ids = np.delete(double.ids, t)
      left = double.value({token: 1.0}, ids=ids, position=column - 1)
      expected = top - left
    np.testing.assert_allclose(found[t], expected, rtol=1e-3, atol=2e-5)
  assert np.abs(found).max() > 1e-2


def test_masking_takes_a_token_from_every_others_sight():
  """The oracle: its column of every pattern is zero, the rest add up to one."""
  double = make_double(tiny_config(num_layers=2, window=4))
  token, n = double.lm.tokenizer.token_id(" Paris"), len(double.ids)
  found = scores(run(double.lm, double.ids, logit(token), "mask"))[0]
  top = double.value({token: 1.0})
  for t in range(n - 1):

    def hide(pattern, t=t):
      pattern = pattern.copy()
      others = np.arange(n) != t
      pattern[:, others, t] = 0
      pattern /= pattern.sum(axis=-1, keepdims=True)
      alone = np.zeros(n)
      alone[t] = 1
      pattern[:, t] = alone
      return pattern

    edits = {Site("pattern", i): hide for i in range(2)}
    left = double.value({token: 1.0}, edits)
    np.testing.assert_allclose(found[t], top - left, rtol=1e-3, atol=2e-5)
  left = double.value({token: 1.0}, position=n - 2)
  np.testing.assert_allclose(found[-1], top - left, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("how", ["delete", "mask"])
def test_rows_of_several_lengths_and_targets_inside(double, how):
  texts = [" Mary and John gave a drink to Mary in", " the capital of"]
  target = activation("resid_post[0]", {"embedding": 3})
  both = scores(run(double.lm, texts, target, how))
  for row, text in enumerate(texts):
    alone = scores(run(double.lm, text, target, how))[0]
    np.testing.assert_allclose(
      both[row, : len(alone)], alone, rtol=1e-3, atol=2e-5
    )
    assert not both[row, len(alone) :].any()
  if how == "delete":
    ids = np.delete(double.lm.tokenizer.encode(texts[1]), 1)
    acts = [
      capture(double.lm, g, ["resid_post[0]"])["resid_post[0]"].data_array
      for g in (texts[1], ids)
    ]
    expected = float(acts[0][0, 3, 3] - acts[1][0, 2, 3])
    np.testing.assert_allclose(both[1, 1], expected, rtol=1e-3, atol=2e-5)


def test_another_target_does_not_compile_again(double):
  run(double.lm, double.ids, logit(" Paris"))
  before = target_deleted._cache_size()
  run(double.lm, double.ids, logit(" Rome"))
  assert target_deleted._cache_size() == before


@pytest.mark.parametrize(
  ("changes", "error", "match"),
  [
    ({"how": "drop"}, errors.ConfigError, r"how='drop'\n.*how='delete' or"),
    ({"at": "z[1]"}, errors.SiteError, r"z\[1\]\n.*occlusion"),
    ({"target": logit(" Paris", 0)}, errors.TextError, "position 0"),
  ],
)
def test_bad_input_is_refused(double, changes, error, match):
  arguments = {"target": logit(" Paris"), **changes}
  with pytest.raises(error, match=match):
    run(double.lm, double.ids, **arguments)
