import jax.numpy as jnp
import numpy as np
import pytest

from gemma_scope.activations.tokens import to_tokens
from gemma_scope.attribution.baselines import baseline_at
from gemma_scope.attribution.rows import to_rows
from gemma_scope.errors import ConfigError
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


def test_mean_is_for_tokens(tiny_lm, rows):
  with pytest.raises(ConfigError, match='at "embed" also "mean" and "pad"'):
    baseline_at(Site("z", 1), "mean", tiny_lm.model, rows)
