import numpy as np
import pytest

from gemma_scope import errors
from gemma_scope.activations.run import capture
from gemma_scope.activations.tokens import to_tokens
from gemma_scope.attribution import gradients
from gemma_scope.attribution.methods.background import (
  background_values,
  resolved_background,
)
from gemma_scope.attribution.objectives import logit
from gemma_scope.attribution.rows import to_rows
from gemma_scope.sites import Site

PROMPTS = [" the capital of France is", " Paris is"]
TEXTS = [
  " Mary and John gave a drink to Mary",
  " the city of Rome is in France",
]


def values(double, given, site, prompts=PROMPTS, draws=(3, 0)):
  lm = double.lm
  batch = to_tokens(lm, prompts)
  background = resolved_background(given, lm, batch, draws)
  rows, target = to_rows(batch, -1), logit(" Paris").resolve(lm)
  found, ends = background_values(lm.model, rows, target, background, site)
  return np.asarray(found), np.asarray(ends), batch, background


@pytest.mark.parametrize("site", [Site("embed"), Site("z", 1)])
def test_texts_are_cut_to_each_prompts_length(double, site, monkeypatch):
  monkeypatch.setattr(gradients, "STEP_TOKENS", 1)  # one at a time
  found, ends, batch, _ = values(double, TEXTS, site)
  assert found.shape[:2] == ends.shape == (2, 2)
  token = double.lm.tokenizer.token_id(" Paris")
  for k, text in enumerate(TEXTS):
    for row, n in enumerate(batch.lengths):
      ids = double.lm.tokenizer.encode(text)[:n]
      expected = double.site(site, ids=np.asarray(ids))
      np.testing.assert_allclose(
        found[k, row, :n], expected, rtol=1e-3, atol=1e-4
      )
      if site.name == "embed":
        bottom = double.value({token: 1.0}, ids=np.asarray(ids))
        np.testing.assert_allclose(ends[k, row], bottom, atol=1e-4)


def test_shuffled_prompts_keep_their_tokens_and_bos(double):
  _, _, batch, background = values(double, "shuffled", Site("embed"))
  assert background.ids.shape == (3, *batch.ids.shape)
  for order in background.ids:
    np.testing.assert_array_equal(np.sort(order), np.sort(batch.ids))
    assert (order[:, 0] == 2).all()
  assert len({tuple(order[0]) for order in background.ids}) > 1
  _, _, _, alone = values(double, "shuffled", Site("embed"), PROMPTS[1])
  n = alone.ids.shape[2]
  np.testing.assert_array_equal(alone.ids[:, 0], background.ids[:, 1, :n])


def test_values_of_the_site_are_used_as_they_are(double):
  given = np.random.default_rng(0).standard_normal((4, 32)).astype(np.float32)
  found, ends, batch, _ = values(double, given, Site("resid_post", 0))
  assert found.shape == (4, 2, 16, 32)
  np.testing.assert_array_equal(found[2, 1, 5], given[2])
  acts = capture(double.lm, PROMPTS, ["embed"])
  assert acts["embed"].named_shape["seq"] == batch.width
  assert len(set(ends[:, 0].tolist())) == 4


@pytest.mark.parametrize(
  ("given", "error", "match"),
  [
    ("noise", errors.ConfigError, "background='noise'"),
    ([" Paris"], errors.TextError, "2 tokens for a prompt of 6"),
    (np.zeros((2, 31), np.float32), errors.ConfigError, "embedding 32"),
  ],
)
def test_bad_backgrounds_are_refused(double, given, error, match):
  with pytest.raises(error, match=match):
    values(double, given, Site("embed"))
