"""The logit lens against a softmax in float64."""

import numpy as np
import pytest

from gemma_scope import axes, errors, testing
from gemma_scope.activations.run import capture
from gemma_scope.analysis import lens
from gemma_scope.analysis.lens import logit_lens, read_lens
from gemma_scope.sites import Site, resolve
from gemma_scope.testing.tiny import tiny_config

TEXTS = [" Mary and John gave a drink to Mary in the city", " the capital of"]
STREAM = (axes.BATCH, axes.SEQ, axes.EMBEDDING)


@pytest.fixture(scope="module")
def lm():
  return testing.tiny_lm(tiny_config(num_layers=2, window=4))


def slow_softmax(lm, residual):
  """Final norm, unembedding and softmax of [..., embedding], float64."""
  x = np.asarray(residual, np.float64)
  x /= np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6)
  gain = 1 + np.asarray(lm.model.final_norm.scale.data_array, np.float64)
  logits = x * gain @ np.asarray(lm.model.table.data_array, np.float64).T
  exp = np.exp(logits - logits.max(-1, keepdims=True))
  return exp / exp.sum(-1, keepdims=True)


def assert_reads(result, row, column, probs, target):
  """One cell, or a block of cells, equals its probabilities."""
  top = probs.argmax(-1)
  np.testing.assert_array_equal(result.top_ids[row][..., column], top)
  np.testing.assert_allclose(
    result.top_probs[row][..., column], probs.max(-1), rtol=1e-4
  )
  np.testing.assert_allclose(
    result.target_probs[row][..., column], probs[..., target], rtol=1e-4
  )
  better = (probs > probs[..., [target]]).sum(-1)
  np.testing.assert_array_equal(result.target_ranks[row][..., column], better)


def test_every_cell_is_a_softmax(lm):
  sites = ("embed", "attn_write[1]", "resid_mid[0]", "resid_post[:]")
  result = logit_lens(lm, TEXTS, sites=sites, target=" Rome")
  acts = capture(lm, TEXTS, sites)
  target = lm.tokenizer.token_id(" Rome")
  assert result.target_id == target
  assert result.sites == resolve(sites, 2)
  assert result.positions == tuple(range(acts.tokens.width))
  for row, site in enumerate(result.sites):
    probs = slow_softmax(lm, acts[site].unwrap(*STREAM))
    assert_reads(result, row, slice(None), probs, target)
  texts = [[lm.tokenizer.pieces(ids) for ids in row] for row in result.top_ids]
  assert result.top_texts == texts


def test_the_last_layer_is_the_models_own_prediction(lm):
  result = logit_lens(lm, TEXTS[0])
  logits = capture(lm, TEXTS[0], ["logits"])["logits"]
  exact = np.asarray(logits.data_array, np.float64)
  exp = np.exp(exact - exact.max(-1, keepdims=True))
  probs = exp / exp.sum(-1, keepdims=True)
  # The token followed by default is the one predicted at the end.
  assert result.target_id == probs[0, -1].argmax()
  assert result.sites[-1] == Site("resid_post", 1)
  assert_reads(result, -1, slice(None), probs, result.target_id)
  assert result.target_ranks[-1, 0, -1] == 0


def test_the_default_target_is_of_the_first_prompts_last_token(lm):
  """The shorter prompt first: its row ends in padding."""
  result = logit_lens(lm, TEXTS[::-1], sites=["embed"])
  assert result.target_id == logit_lens(lm, TEXTS[1]).target_id
  assert result.target_id == logit_lens(lm, TEXTS[1]).top_ids[-1, 0, -1]


def test_positions_choose_columns(lm):
  whole = logit_lens(lm, TEXTS, target=9)
  some = logit_lens(lm, TEXTS, target=9, positions=slice(-3, None))
  assert some.positions == whole.positions[-3:]
  for field in ("top_ids", "top_probs", "target_probs", "target_ranks"):
    np.testing.assert_array_equal(
      getattr(some, field), getattr(whole, field)[..., -3:]
    )


def test_more_rows_than_fit_at_once_change_nothing(lm, monkeypatch):
  text = TEXTS[0] * 8  # 2 x 81 rows: more than one chunk, and a remainder
  result = logit_lens(lm, text, target=" Rome")
  assert result.top_ids.size > 2 * lens.ROWS_AT_ONCE
  acts = capture(lm, text, ["resid_post[:]"])
  probs = slow_softmax(lm, acts.stacked("resid_post").unwrap("layer", *STREAM))
  assert_reads(result, slice(None), slice(None), probs, result.target_id)


def test_it_reads_activations_that_are_already_there(lm):
  acts = capture(lm, TEXTS, ["resid_post[:]"])
  site = Site("resid_post", 0)
  result = read_lens(lm, acts, (site,), (2, 0), 9)
  whole = logit_lens(lm, TEXTS, sites=[site], target=9)
  np.testing.assert_array_equal(result.top_ids, whole.top_ids[..., [2, 0]])
  assert result.positions == (2, 0)


def test_it_shows_itself(lm):
  result = logit_lens(lm, TEXTS)
  assert repr(result) == f"Lens(2 sites x {len(result.positions)} positions)"
  page = result._repr_html_()
  assert page.count("Logit lens") == 2  # one a prompt
  assert "resid_post[1]" in page


def test_sites_come_as_one_or_as_any_iterable(lm):
  one = logit_lens(lm, TEXTS[0], sites="resid_post[:]")
  many = logit_lens(lm, TEXTS[0], sites=(f"resid_post[{i}]" for i in (1, 0)))
  assert one.sites == many.sites == resolve("resid_post[:]", 2)


@pytest.mark.parametrize(
  "site",
  ["z[0]", "mlp_act[1]", "logits", "final_norm", "attn_in[0]", "mlp_in[1]"],
)
def test_what_is_not_in_the_stream_is_refused(lm, site):
  with pytest.raises(
    errors.SiteError,
    match=r"residual stream only(.|\n)*resid_post, or a \*_write",
  ):
    logit_lens(lm, TEXTS[0], sites=[site])


def test_a_target_of_two_tokens_is_refused(lm):
  with pytest.raises(errors.TextError, match="exactly one token; this is 2"):
    logit_lens(lm, TEXTS[0], target=" Paris Rome")


def test_positions_outside_the_prompt_are_refused(lm):
  with pytest.raises(errors.SiteError, match="no token at this position"):
    logit_lens(lm, TEXTS[0], positions=slice(100, 200))
