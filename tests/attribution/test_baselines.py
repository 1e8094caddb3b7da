import jax.numpy as jnp
import numpy as np
import pytest

from gemma_scope.activations.run import capture
from gemma_scope.activations.tokens import to_tokens
from gemma_scope.attribution.baselines import (
  OtherPrompt,
  ReplacedTokens,
  baseline_at,
  resolved_baseline,
)
from gemma_scope.attribution.rows import to_rows
from gemma_scope.errors import ConfigError, TextError
from gemma_scope.sites import Site

EMBED = Site("embed")
IDS = [[2, 9, 7, 30], [2, 11, 0, 0]]


@pytest.fixture
def rows(tiny_lm):
  return to_rows(to_tokens(tiny_lm, np.asarray(IDS)), -1)


def embedded(tiny_lm):
  table = np.asarray(tiny_lm.model.table.data_array)
  return table[np.asarray(IDS)] * np.float32(tiny_lm.config.d_model**0.5)


def test_mean_of_each_prompts_own_tokens_bos_kept(tiny_lm, rows):
  found = np.asarray(baseline_at(EMBED, None, tiny_lm.model, rows))
  x = embedded(tiny_lm)
  np.testing.assert_array_equal(found[:, 0], x[:, 0])
  for column in (1, 2, 3):
    np.testing.assert_allclose(found[0, column], x[0, 1:].mean(0), rtol=1e-5)
  np.testing.assert_allclose(found[1, 1], x[1, 1], rtol=1e-6)


def test_pad_bos_kept(tiny_lm, rows):
  found = np.asarray(baseline_at(EMBED, "pad", tiny_lm.model, rows))
  x = embedded(tiny_lm)
  np.testing.assert_array_equal(found[:, 0], x[:, 0])
  np.testing.assert_allclose(found[0, 1], x[1, 3], rtol=1e-6)


def test_zero_and_arrays_at_any_site(tiny_lm, rows):
  z = Site("z", 1)
  assert not np.any(baseline_at(z, None, tiny_lm.model, rows))
  given = jnp.ones((1, 1, 1, 1))
  found = baseline_at(z, given, tiny_lm.model, rows)
  np.testing.assert_array_equal(found, given)


def test_arrays_span_the_columns_that_text_is_padded_with(tiny_lm):
  batch = to_tokens(
    tiny_lm, " the capital of France is"
  )  # 6 tokens, 16 columns
  rows = to_rows(batch, -1)
  rng = np.random.default_rng(0)
  pattern = rng.random((4, 6, 6))
  found = baseline_at(Site("pattern", 1), pattern, tiny_lm.model, rows)
  np.testing.assert_allclose(found[0, :, :6, :6], pattern, rtol=1e-6)
  assert found.shape == (1, 4, 16, 16)
  assert not np.asarray(found[..., 6:]).any()
  vector = rng.random(32)
  found = baseline_at(EMBED, vector, tiny_lm.model, rows)
  np.testing.assert_allclose(found, vector[None, None], rtol=1e-6)


@pytest.mark.parametrize("shape", [(31,), (1, 5, 32), (3, 1, 1), (1, 1, 1, 1)])
def test_arrays_of_another_shape_are_refused(tiny_lm, rows, shape):
  with pytest.raises(
    ConfigError, match="axes batch 2, seq 4, embedding 32; any of them may be 1"
  ):
    baseline_at(EMBED, np.ones(shape), tiny_lm.model, rows)


@pytest.mark.parametrize(
  ("site", "wanted"),
  [(Site("pattern", 1), "mean"), (Site("z", 1), "pad"), (EMBED, "blur")],
)
def test_what_a_site_does_not_have_is_refused(tiny_lm, rows, site, wanted):
  with pytest.raises(
    ConfigError, match=f"baseline='{wanted}'.*\n.*\"mean\" at"
  ):
    baseline_at(site, wanted, tiny_lm.model, rows)


def test_mean_of_any_site_is_over_each_prompts_own_tokens(tiny_lm, rows):
  site = Site("z", 1)
  acts = capture(tiny_lm, np.asarray(IDS), [site])
  x = np.asarray(acts[site].unwrap(*site.info.axes))
  found = np.asarray(baseline_at(site, "mean", tiny_lm.model, rows))
  np.testing.assert_allclose(found[:, 0], x[:, 0], rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(
    found[0, 2], x[0, 1:].mean(0), rtol=1e-4, atol=1e-6
  )
  np.testing.assert_allclose(found[1, 1], x[1, 1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("site", [EMBED, Site("mlp_act", 2)])
def test_other_tokens_stand_for_their_value(tiny_lm, site):
  batch = to_tokens(tiny_lm, [" the capital of France is", " Paris is"])
  others = [" the city of Rome is", " John is"]
  wanted = resolved_baseline(OtherPrompt(others), tiny_lm, batch)
  found = baseline_at(site, wanted, tiny_lm.model, to_rows(batch, -1))
  acts = capture(tiny_lm, others, [site])
  expected = np.asarray(acts[site].unwrap(*site.info.axes))
  for row, n in enumerate(batch.lengths):
    np.testing.assert_allclose(
      found[row, :n], expected[row, :n], rtol=1e-4, atol=1e-5
    )


def test_one_prompt_stands_for_all_of_its_length(tiny_lm):
  batch = to_tokens(tiny_lm, [" Paris is", " Rome is"])
  wanted = resolved_baseline(OtherPrompt(" John is"), tiny_lm, batch)
  found = baseline_at(EMBED, wanted, tiny_lm.model, to_rows(batch, -1))
  assert found.shape[0] in (1, 2)


def test_control_tokens_are_not_replaced(tiny_lm):
  text = "<start_of_turn> Paris is<end_of_turn>"
  batch = to_tokens(tiny_lm, [text, " the capital of France is a city"])
  resolved = resolved_baseline(ReplacedTokens(" and"), tiny_lm, batch)
  filler = tiny_lm.tokenizer.token_id(" and")
  np.testing.assert_array_equal(
    resolved.ids[0], [2, 105, filler, filler, 106, 0, 0, 0]
  )
  assert (resolved.ids[1, 1:] == filler).all()
  assert resolved.ids[1, 0] == 2


@pytest.mark.parametrize("other", [" Paris", [" Paris is", " Paris"]])
def test_prompts_of_another_length_are_refused(tiny_lm, other):
  batch = to_tokens(tiny_lm, " the capital of")
  with pytest.raises(TextError, match=r"as many tokens as(.|\n)*\[4\]"):
    resolved_baseline(OtherPrompt(other), tiny_lm, batch)
