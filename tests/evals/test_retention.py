"""Every method keeps the same number of tokens, whatever its scale."""

import numpy as np
import pytest

from gemma_scope.errors import GemmaScopeError
from gemma_scope.evals.retention import Soft, matched_retention

rng = np.random.default_rng(0)
HERE = np.arange(16)[None, :] < np.asarray([16, 9, 4])[:, None]
SCORES = {
  "normal": rng.normal(size=HERE.shape),
  "heavy": np.exp(3 * rng.normal(size=HERE.shape)),
  "one": (np.arange(16)[None, :] == 2) * np.ones((3, 1)),
  "flat": np.ones(HERE.shape),
}
every = pytest.mark.parametrize("scores", SCORES.values(), ids=SCORES)
shares = pytest.mark.parametrize("share", [0.1, 0.3, 0.9])


@every
@shares
def test_the_budget_is_met(scores, share):
  kept = matched_retention(scores, HERE, share)
  np.testing.assert_allclose(kept.sum(axis=1), share * HERE.sum(axis=1))
  assert kept.min() >= 0
  assert kept.max() <= 1 + 1e-12
  assert (kept[~HERE] == 0).all()


@every
@shares
def test_scale_and_shift_do_not_matter(scores, share):
  first = matched_retention(scores, HERE, share)
  for other in (1000.0 * scores, scores + 5.0, 1e-6 * scores - 2.0):
    np.testing.assert_allclose(
      matched_retention(other, HERE, share), first, atol=1e-8
    )


@every
def test_higher_scores_are_kept_more(scores):
  kept = matched_retention(scores, HERE, 0.4)
  for row, share, here in zip(scores, kept, HERE):
    order = np.argsort(row[here], kind="stable")
    assert (np.diff(share[here][order]) > -1e-9).all()


def test_in_proportion_below_the_cap():
  scores = np.asarray([[0.0, 1.0, 2.0, 3.0]])
  kept = matched_retention(scores, np.ones((1, 4), bool), 0.25)
  np.testing.assert_allclose(kept, scores / 6)


def test_unmatched_retention_would_reward_scale():
  """Why this is here: the same order, scaled, looks more sufficient."""
  weights = np.asarray([0.1, 0.2, 0.3, 1.0])

  def drop(kept):
    return weights.sum() - (kept * weights).sum()

  order = np.asarray([[0.0, 0.2, 0.3, 0.5]])
  assert drop(np.minimum(1, 2 * order[0])) < drop(order[0])
  matched = [
    drop(matched_retention(s, np.ones((1, 4), bool), 0.3)[0])
    for s in (order, 2 * order)
  ]
  np.testing.assert_allclose(matched[0], matched[1])


def test_one_run_of_the_whole_then_both_kinds_of_draws():
  runs = Soft(retention=0.25, draws=3).runs(SCORES["normal"], HERE)
  kept = (runs.keep * HERE[:, None, :]).sum(axis=2) / HERE.sum(axis=1)[:, None]
  np.testing.assert_allclose(kept[:, 0], 1)
  np.testing.assert_allclose(kept[:, 1:4], 0.75, rtol=1e-5)
  np.testing.assert_allclose(kept[:, 4:], 0.25, rtol=1e-5)
  assert runs.draws[0].tolist() == [0, 1, 2, 3, 1, 2, 3]


@pytest.mark.parametrize(("retention", "draws"), [(0, 2), (1, 2), (0.5, 0)])
def test_settings_that_keep_nothing(retention, draws):
  with pytest.raises(GemmaScopeError, match="keeps a share of the tokens"):
    Soft(retention, draws)
