import numpy as np
import pytest

from gemma_scope import errors
from gemma_scope.activations.run import capture
from gemma_scope.activations.tokens import to_tokens
from gemma_scope.analysis import probe_features
from gemma_scope.analysis.probe_features import labelled_features, token_weights
from gemma_scope.sites import Site

ABOVE = [" the capital of France is", " Paris is", " the city of Rome is"]
BELOW = [" Mary gave a drink to John", " John and Mary"]
SITES = (Site("resid_post", 0), Site("z", 1))


def alone(lm, text, site):
  acts = capture(lm, text, [site])
  return np.asarray(acts[site].unwrap(*site.info.axes))[0]


@pytest.mark.parametrize(
  ("position", "rule"),
  [
    (-1, lambda x: x[-1]),
    (1, lambda x: x[1]),
    ([0, -1], lambda x: (x[0] + x[-1]) / 2),
    ("mean", lambda x: x[1:].mean(0)),
  ],
)
def test_features_are_those_of_each_text_alone(
  tiny_lm, position, rule, monkeypatch
):
  monkeypatch.setattr(probe_features, "ROWS_AT_ONCE", 2)
  features, labels = labelled_features(tiny_lm, (ABOVE, BELOW), SITES, position)
  np.testing.assert_array_equal(labels, [True] * 3 + [False] * 2)
  for site, found in features.items():
    assert found.dtype == np.float64
    for row, text in zip(found, ABOVE + BELOW):
      expected = rule(alone(tiny_lm, text, site))
      np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-5)


def test_missing_tokens_are_refused(tiny_lm):
  batch = to_tokens(tiny_lm, BELOW)
  with pytest.raises(
    errors.TextError, match=r"position \[0, 5\], the shortest"
  ):
    token_weights(batch, [0, 5])


def test_a_text_of_one_token_is_its_own_mean(tiny_lm):
  batch = to_tokens(tiny_lm, np.asarray([[2]]))
  np.testing.assert_array_equal(token_weights(batch, "mean"), [[1.0]])
